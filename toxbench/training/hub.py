"""The Hugging Face Hub and its cache: one question with a deadline, then checked downloads."""

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
from toxbench.util.hashing import sha256_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

ANSWER_WITHIN = 2.5  # seconds; name look-up, connection and answer together
# A file may take this many seconds, and one more for each 100 kB: a server that hangs or drips
# would keep a run waiting for ever. What did arrive is kept, and the next download goes on there.
PATIENCE = 30.0
_SLOWEST = 100_000  # bytes a second
_INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = frozenset(
    {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
        "vocab.json", "merges.txt", "added_tokens.json", "spm.model", "spiece.model",
        "sentencepiece.bpe.model",
    }
)  # fmt: skip


_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
Answer = TypeVar("Answer")


class HubError(TryAgainError):
    """The Hub did not give what was asked for. The message says why, in one line."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub describes it; small ones are kept in git, and have its hash instead."""

    name: str
    size: int | None
    sha256: str | None
    git_sha1: str | None

    @property
    def seconds(self) -> float:
        """How long its download may take."""
        return PATIENCE + (self.size or 0) / _SLOWEST


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository: the files that a backbone needs."""

    repository: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]


class Hub:
    """The Hub as one run sees it: when it cannot be reached once, it is not asked again."""

    def __init__(self) -> None:
        self._unreachable: str | None = None

    def ask(self, repository: str, revision: str = "main") -> Snapshot:
        """Ask for a branch's commit and its files: one request, answered in 2.5 s or given up.

        Raises:
            HubError: offline, no answer in time, refused, unknown, or no safetensors there.
        """
        if constants.HF_HUB_OFFLINE:
            raise HubError("HF_HUB_OFFLINE is set")
        if self._unreachable is not None:
            raise HubError(self._unreachable)
        answer = _within(ANSWER_WITHIN, lambda: _model_info(repository, revision))
        if isinstance(answer, Exception):
            reason = f"the Hugging Face Hub says: {_reason(answer)}"
            if _is_transport(answer):
                reason = f"the Hugging Face Hub cannot be reached: {_reason(answer)}"
                self._unreachable = reason
            raise HubError(reason) from answer
        return _snapshot(repository, revision, answer)

    def download(self, snapshot: Snapshot) -> Path:
        """Fetch every file of a snapshot into the Hugging Face cache and check it.

        Raises:
            HubError: a file did not arrive whole, or not in time; a damaged one is removed from
                the cache.
        """
        for file in snapshot.files:
            try:
                path = _download(snapshot.repository, file.name, snapshot.commit, file.seconds)
            except HubError as error:
                if isinstance(error.__cause__, TimeoutError):
                    self._unreachable = str(error)
                raise
            _check(path, file, snapshot.repository)
        # The cache notes a branch's commit only when it is asked for by that name. Done last,
        # so that the note means that everything is there.
        last = _download(snapshot.repository, "config.json", snapshot.revision, PATIENCE)
        return last.parent


def cached_snapshot(repository: str, revision: str = "main") -> tuple[Path, str] | None:
    """Return folder and commit of a repository's branch that is whole in the Hugging Face cache.

    Reads the cache's documented layout without importing the client, which takes half a second.
    """
    root = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
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


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that a checkpoint folder has, or should have, by name."""
    single = folder / "model.safetensors"
    return [single] if os.path.isfile(single) else [folder / name for name in _shards(folder)]


def _shards(folder: Path) -> list[str]:
    """Return the files that the index names; none where one is no safetensors file beside it."""
    import json

    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        names = sorted({str(name) for name in index["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []
    return names if all(map(_SHARD.fullmatch, names)) else []


def _within(seconds: float, work: Callable[[], Answer]) -> Answer | Exception:
    """Work in a thread of its own: a name look-up cannot be given a time limit otherwise."""
    answers: list[Answer | Exception] = []

    def ask() -> None:
        try:
            answers.append(work())
        except Exception as error:  # noqa: BLE001 - handed to the caller
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else TimeoutError(f"no answer within {seconds:.3g} s")


def _model_info(repository: str, revision: str) -> "ModelInfo":
    from huggingface_hub import HfApi

    return HfApi().model_info(
        repository, revision=revision, timeout=ANSWER_WITHIN, files_metadata=True
    )


def _is_transport(error: Exception) -> bool:
    """Whether nobody answered, as opposed to an answer that is a refusal."""
    return getattr(error, "response", None) is None


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _snapshot(repository: str, revision: str, info: "ModelInfo") -> Snapshot:
    siblings = info.siblings or []
    names = {sibling.rfilename for sibling in siblings}
    single = "model.safetensors" in names
    wanted = tuple(
        RemoteFile(
            s.rfilename,
            s.size,
            s.lfs.sha256 if s.lfs else None,
            None if s.lfs else s.blob_id,  # of a large file, it is that of a pointer to it
        )
        for s in siblings
        if s.rfilename in _TOKENIZER_FILES | {"config.json"} or _is_weights(s.rfilename, single)
    )
    if info.sha is None or not any(f.name.endswith(".safetensors") for f in wanted):
        raise HubError(
            f"{repository} holds no safetensors weights, and nothing else is loaded: a pickle such "
            "as pytorch_model.bin may run code; where a pull request holds them, a plugin can name "
            'it: Backbone(revision="refs/pr/1")'
        )
    return Snapshot(repository, revision, info.sha, wanted)


def _is_weights(name: str, single: bool) -> bool:
    if single:
        return name == "model.safetensors"
    return name == _INDEX or (name.startswith("model-") and name.endswith(".safetensors"))


def _download(repository: str, name: str, revision: str, seconds: float) -> Path:
    from huggingface_hub import hf_hub_download

    answer = _within(seconds, lambda: hf_hub_download(repository, name, revision=revision))
    if isinstance(answer, Exception):
        reason = _reason(answer)
        raise HubError(f"{name} of {repository} did not arrive: {reason}") from answer
    return Path(answer)


def _check(path: Path, file: RemoteFile, repository: str) -> None:
    if (
        file.size in {None, path.stat().st_size}
        and (file.sha256 is None or sha256_file(path) == file.sha256)
        and (file.git_sha1 is None or _git_sha1_of(path) == file.git_sha1)
    ):
        return
    path.resolve().unlink()  # the blob; the link in the snapshot goes with it
    path.unlink(missing_ok=True)
    raise HubError(f"{file.name} of {repository} arrived damaged and was removed")


def _git_sha1_of(path: Path) -> str:
    """Return the name that git has for a file's content; small files have no other hash."""
    data = path.read_bytes()
    blob = f"blob {len(data)}\0".encode("ascii") + data
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest()
