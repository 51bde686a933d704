"""The files of a checkpoint folder, and the names and shapes of their tensors.

Nothing here imports torch or numpy.
"""

import json
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from toxbench.errors import StorageError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
Shape = tuple[int, ...]
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
_WRAPPERS = ("module.", "_orig_mod.")  # of torch's DataParallel and torch.compile


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that a checkpoint folder has, or should have, by name."""
    single = folder / WEIGHTS
    return [single] if os.path.isfile(single) else [folder / name for name in _shards(folder)]


def tensor_shapes(files: Iterable[Path]) -> dict[str, Shape]:
    """Return tensor name -> shape from the headers of safetensors files.

    Raises:
        StorageError: a header cannot be read.
    """
    return {name: shape for path in files for name, shape in _header_shapes(path).items()}


def wrapper_prefix(names: Iterable[str]) -> str:
    """Return the prefix that wrappers of a module added to all its tensors' names; "": none."""
    prefix, rest = "", list(names)
    while rest:
        wrapper = next((w for w in _WRAPPERS if all(name.startswith(w) for name in rest)), None)
        if wrapper is None:
            break
        prefix, rest = prefix + wrapper, [name.removeprefix(wrapper) for name in rest]
    return prefix


def _shards(folder: Path) -> list[str]:
    """Return the file names of the index; empty if one is not a safetensors file in the folder."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        names = sorted({str(name) for name in index["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []
    return names if all(map(_SHARD.fullmatch, names)) else []


def _header_shapes(path: Path) -> dict[str, Shape]:
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (OSError, struct.error, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise StorageError(f"{path} is not a readable safetensors file") from error
