"""The Hugging Face Hub and its cache: one request with a time limit, then checked downloads."""

import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from huggingface_hub import constants

from toxbench.errors import TryAgainError
from toxbench.plugin.checkpoint import INDEX, weight_files
from toxbench.util.content import sha256_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

REQUEST_TIMEOUT = 2.5  # seconds; name look-up, connection and answer together
# Seconds for a file, plus one for each 100 kB: a server that hangs or sends too slowly would block
# a run forever. The bytes received so far are stored, and the next download continues after them.
DOWNLOAD_TIMEOUT = 30.0
_MIN_BYTES_PER_SECOND = 100_000
_TOKENIZER_FILES = frozenset(
    {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
        "vocab.json", "merges.txt", "added_tokens.json", "spm.model", "spiece.model",
        "sentencepiece.bpe.model",
    }
)  # fmt: skip
# Of sentence-transformers: the modules after the encoder, such as the pooling.
_MODULE_FILE = re.compile(
    r"(modules|sentence_bert_config|config_sentence_transformers)\.json"
    r"|[0-9]+_\w+/(config\.json|model\.safetensors)"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
Result = TypeVar("Result")


class HubError(TryAgainError):
    """The Hub did not return the requested data. The message gives the reason in one line."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub describes it.

    Attributes:
        name: path in the repository.
        size: in bytes, if known.
        sha256: of a large file's content.
        git_sha1: of a small file, which is stored in git and has no sha256.
    """

    name: str
    size: int | None
    sha256: str | None
    git_sha1: str | None

    @property
    def timeout(self) -> float:
        """Seconds allowed for the download."""
        return DOWNLOAD_TIMEOUT + (self.size or 0) / _MIN_BYTES_PER_SECOND


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository: the files that a backbone needs."""

    repository: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]


class Hub:
    """The Hub during one run; after a failed connection there are no more requests."""

    def __init__(self) -> None:
        self._unreachable: str | None = None

    def fetch_snapshot(self, repository: str, revision: str = "main") -> Snapshot:
        """Request a branch's commit and its files, with a time limit of 2.5 s.

        Raises:
            HubError: offline mode, no answer in time, an error from the Hub, or a repository
                without safetensors files.
        """
        if constants.HF_HUB_OFFLINE:
            raise HubError("HF_HUB_OFFLINE is set")
        if self._unreachable is not None:
            raise HubError(self._unreachable)
        answer = _call_with_timeout(REQUEST_TIMEOUT, lambda: _model_info(repository, revision))
        if isinstance(answer, Exception):
            reason = f"the Hugging Face Hub returned an error: {_first_line(answer)}"
            if _is_connection_error(answer):
                reason = f"the Hugging Face Hub cannot be reached: {_first_line(answer)}"
                self._unreachable = reason
            raise HubError(reason) from answer
        return _snapshot(repository, revision, answer)

    def download(self, snapshot: Snapshot) -> Path:
        """Download every file of a snapshot into the Hugging Face cache; return the folder.

        Raises:
            HubError: a download failed or took too long, or a file is damaged; a damaged file is
                removed from the cache.
        """
        for file in snapshot.files:
            try:
                path = _download(snapshot.repository, file.name, snapshot.commit, file.timeout)
            except HubError as error:
                if isinstance(error.__cause__, TimeoutError):
                    self._unreachable = str(error)
                raise
            _verify(path, file, snapshot.repository)
        # The cache records a branch's commit only when a file is requested by the branch's name.
        # This request is the last one, so that the record means that all files are in the cache.
        config = _download(snapshot.repository, "config.json", snapshot.revision, DOWNLOAD_TIMEOUT)
        return config.parent


def cached_snapshot(repository: str, revision: str = "main") -> tuple[Path, str] | None:
    """Return folder and commit of a revision if the Hugging Face cache holds a full checkpoint.

    Reads the cache's documented layout without importing the client, which takes half a second.
    """
    root = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            commit = (root / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
    folder = root / "snapshots" / commit
    return (folder, commit) if commit and is_checkpoint(folder) else None


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a config, a tokenizer and all safetensors files."""
    paths = weight_files(folder)
    has_weights = bool(paths) and all(map(os.path.isfile, paths))
    has_tokenizer = any(os.path.isfile(folder / name) for name in _TOKENIZER_FILES)
    return os.path.isfile(folder / "config.json") and has_weights and has_tokenizer


def _call_with_timeout(seconds: float, function: Callable[[], Result]) -> Result | Exception:
    """Return a function's result or exception, or a TimeoutError.

    The function runs in a thread: a name look-up has no time limit otherwise.
    """
    results: list[Result | Exception] = []

    def call() -> None:
        try:
            results.append(function())
        except Exception as error:  # noqa: BLE001 - returned to the caller
            results.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else TimeoutError(f"no answer within {seconds:.3g} s")


def _model_info(repository: str, revision: str) -> "ModelInfo":
    from huggingface_hub import HfApi

    return HfApi().model_info(
        repository, revision=revision, timeout=REQUEST_TIMEOUT, files_metadata=True
    )


def _is_connection_error(error: Exception) -> bool:
    """Whether there was no answer, as opposed to an answer with an error."""
    return getattr(error, "response", None) is None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _snapshot(repository: str, revision: str, info: "ModelInfo") -> Snapshot:
    """Return the files that a backbone needs: config, tokenizer and safetensors weights."""
    siblings = info.siblings or []
    names = {sibling.rfilename for sibling in siblings}
    is_single_file = "model.safetensors" in names
    files = tuple(
        RemoteFile(
            s.rfilename,
            s.size,
            s.lfs.sha256 if s.lfs else None,
            None if s.lfs else s.blob_id,  # of a large file, this is the hash of a pointer
        )
        for s in siblings
        if s.rfilename in _TOKENIZER_FILES | {"config.json"}
        or _MODULE_FILE.fullmatch(s.rfilename)
        or _is_weights_file(s.rfilename, is_single_file)
    )
    if info.sha is None or not any(f.name.endswith(".safetensors") for f in files):
        raise HubError(
            f"{repository} holds no safetensors weights, and other formats are not loaded: a "
            "pickle such as pytorch_model.bin may run code; if a pull request adds safetensors, "
            'name it in the plugin: Backbone(revision="refs/pr/1")'
        )
    return Snapshot(repository, revision, info.sha, files)


def _is_weights_file(name: str, is_single_file: bool) -> bool:
    if is_single_file:
        return name == "model.safetensors"
    return name == INDEX or (name.startswith("model-") and name.endswith(".safetensors"))


def _download(repository: str, name: str, revision: str, timeout: float) -> Path:
    from huggingface_hub import hf_hub_download

    answer = _call_with_timeout(
        timeout, lambda: hf_hub_download(repository, name, revision=revision)
    )
    if isinstance(answer, Exception):
        raise HubError(f"cannot download {name} of {repository}: {_first_line(answer)}") from answer
    return Path(answer)


def _verify(path: Path, file: RemoteFile, repository: str) -> None:
    """Compare size and hash of a downloaded file; remove it if they differ."""
    if (
        file.size in {None, path.stat().st_size}
        and (file.sha256 is None or sha256_file(path) == file.sha256)
        and (file.git_sha1 is None or _git_sha1_of(path) == file.git_sha1)
    ):
        return
    path.resolve().unlink()  # the blob; the link in the snapshot follows
    path.unlink(missing_ok=True)
    raise HubError(f"the download of {file.name} of {repository} is damaged and was removed")


def _git_sha1_of(path: Path) -> str:
    """Return git's hash of a file's content, the only hash that the Hub gives for small files."""
    data = path.read_bytes()
    blob = f"blob {len(data)}\0".encode("ascii") + data
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest()
