"""A file of tensors and a text with a checksum over both: safetensors, so no pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

Tensors = Mapping[str, npt.NDArray[Any]]


def encode(kind: str, text: str, tensors: Tensors) -> bytes:
    """Return the content of a file that holds tensors and a text.

    Args:
        kind: of the file.
        text: JSON.
        tensors: by name.
    """
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    header = json.dumps({"record": text, "sha256": _checksum(text, whole)})
    # One key: safetensors writes several in an order that changes from call to call.
    return save(whole, metadata={kind: header})


def decode(kind: str, data: bytes) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    """Return the text and the tensors of a file's content.

    Raises:
        ValueError: it is not as `encode` made it.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][kind])
        text = header["record"]
        tensors = load(data)
        if header["sha256"] != _checksum(text, tensors):
            raise ValueError("the checksum differs")
        return text, tensors
    # ImportError: of a number type that numpy has not.
    except (
        LookupError, TypeError, AttributeError, OverflowError, RecursionError, ImportError,
        SafetensorError,
    ) as error:  # fmt: skip
        raise ValueError("not as it was written") from error


def read_tensor(path: Path, name: str) -> npt.NDArray[Any]:
    """Read one tensor of a file whose checksum was compared before.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensor: npt.NDArray[Any] = file.get_tensor(name)
            return tensor
    except SafetensorError as error:
        raise ValueError("not as it was written") from error


def _checksum(text: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(text.encode("utf-8"))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tensor.shape}".encode("ascii"))
        digest.update(tensor.data if tensor.size else b"")
    return digest.hexdigest()
