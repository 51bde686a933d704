"""Files of tensors and a text with a checksum over both, in the format of safetensors."""

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
    """Return the content of a file with tensors by name and a text, which is JSON.

    `decode` compares the kind, such as ``cell``.
    """
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    header = json.dumps({"record": text, "sha256": _checksum(text, contiguous)})
    # One key, because safetensors writes several keys in an order that varies between calls.
    return save(contiguous, metadata={kind: header})


def decode(kind: str, data: bytes) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    """Return the text and the tensors of a file's content.

    Raises:
        ValueError: the content is damaged or of another kind.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][kind])
        text = header["record"]
        tensors = load(data)
        if header["sha256"] != _checksum(text, tensors):
            raise ValueError("the checksum differs")
        return text, tensors
    # ImportError is raised for a number type that numpy does not have.
    except (
        LookupError, TypeError, AttributeError, OverflowError, RecursionError, ImportError,
        SafetensorError,
    ) as error:  # fmt: skip
        raise ValueError("the file is damaged") from error


def read_tensor(path: Path, name: str) -> npt.NDArray[Any]:
    """Read one tensor of a file without comparing the checksum.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not in the format of safetensors, or has no such tensor.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensor: npt.NDArray[Any] = file.get_tensor(name)
            return tensor
    except SafetensorError as error:
        raise ValueError("the file is damaged") from error


def _checksum(text: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(text.encode("utf-8"))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tensor.shape}".encode("ascii"))
        digest.update(tensor.data if tensor.size else b"")
    return digest.hexdigest()
