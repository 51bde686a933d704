"""Files in the folder of a protocol: cells, failed cells, and the table's rows without comments."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from toxbench.data.groups import row_groups
from toxbench.data.table import TextDataset
from toxbench.data.text_array import TextArray
from toxbench.errors import StorageError
from toxbench.records import PARTS, CellKey, CellRecord, FailureRecord, Part, StoredRecord
from toxbench.store.folder import DamagedError, read_errors
from toxbench.util.arrays import Codes, Targets, known_targets
from toxbench.util.atomic import write_atomically
from toxbench.util.text import redact

Tensors = Mapping[str, npt.NDArray[Any]]
SUFFIX = ".safetensors"
PartProbabilities = Mapping[Part, npt.NDArray[np.float32]]  # part -> [row, label]
_MEMORY_BYTES = 256 * 2**20
_REMEDY = "start the same toxbench run again, which moves it aside and computes it again"
_Stamp = tuple[int, int, int]  # inode, size and time of the last change
FILE = "rows.safetensors"


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


class CellReader:
    """Reads each cell file once, until the file changes.

    The probabilities of cells are kept in memory up to a limit over all cells; those of the other
    cells are read again at each access.
    """

    def __init__(self, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._free = memory_bytes
        self._cells: dict[Path, tuple[_Stamp, CellRecord, PartProbabilities]] = {}

    def read(self, path: Path) -> tuple[CellRecord, PartProbabilities]:
        """Return the record and the probabilities of a cell.

        Raises:
            DamagedError: the file is damaged.
            StorageError: it cannot be read, or a newer toxbench wrote it.
        """
        stamp = _stamp(path)
        if path in self._cells:
            known, record, probabilities = self._cells[path]
            if known == stamp:
                return record, probabilities
            self._forget(path)
        record, arrays = read_cell(path)
        size = sum(values.nbytes for values in arrays.values())
        is_small = size <= self._free
        if is_small:
            self._free -= size
        probabilities = arrays if is_small else LazyProbabilities(path)
        self._cells[path] = stamp, record, probabilities
        return record, probabilities

    def _forget(self, path: Path) -> None:
        _, _, probabilities = self._cells.pop(path)
        if isinstance(probabilities, dict):
            self._free += sum(values.nbytes for values in probabilities.values())


def _stamp(path: Path) -> _Stamp:
    with read_errors(path, _REMEDY):
        stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def write_cell(path: Path, record: CellRecord, probabilities: PartProbabilities) -> None:
    """Write a cell atomically; raises `StorageError` if that is not possible."""
    tensors: Tensors = {part: probabilities[part] for part in PARTS}
    write_atomically(path, encode("cell", record.model_dump_json(), tensors))


@dataclass(frozen=True)
class LazyProbabilities(PartProbabilities):
    """The probabilities of a cell whose checksum was compared; each access reads the file."""

    path: Path

    def __getitem__(self, part: Part) -> npt.NDArray[np.float32]:
        if part not in PARTS:
            raise KeyError(part)
        try:
            return read_tensor(self.path, part)
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror}") from error
        except ValueError as error:  # the file was replaced after its checksum was compared
            raise DamagedError(f"{self.path} has just changed; try again") from error

    def __iter__(self) -> Iterator[Part]:
        return iter(PARTS)

    def __len__(self) -> int:
        return len(PARTS)


def read_cell(path: Path) -> tuple[CellRecord, dict[Part, npt.NDArray[np.float32]]]:
    """Read a cell's record and its probabilities: part -> float32 ``[row, label]``.

    Raises:
        DamagedError: the file is damaged.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    with read_errors(path, _REMEDY):
        text, tensors = decode("cell", path.read_bytes())
        record = CellRecord.from_json(text, path)
        probabilities = {part: tensors[part] for part in PARTS}
        if any(values.dtype != np.float32 or values.ndim != 2 for values in probabilities.values()):
            raise ValueError("probabilities are float32 [row, label]")
        if record.key.stem != path.name.removesuffix(SUFFIX):
            raise ValueError("the file has the name of another cell")
        return record, probabilities


@dataclass(frozen=True, eq=False)
class StoredRows:
    """The table without its texts, in the table's order.

    Attributes:
        ids: one for each row.
        codes: 0, 1, or `UNLABELLED`, uint8 ``[row, label]``.
        groups: group number of each row (see `row_groups`), int64 ``[row]``.
        is_grouped: whether the table's group column has a value for a row, bool ``[row]``.
    """

    ids: Sequence[str]
    codes: Codes
    groups: npt.NDArray[np.int64]
    is_grouped: npt.NDArray[np.bool_]

    @cached_property
    def targets(self) -> Targets:
        """0/1, uint8 ``[row, label]``; 0 where a row is not labelled."""
        return known_targets(self.codes)


def write_rows(folder: Path, comments: TextDataset) -> None:
    """Write a table's rows into a protocol's folder, unless the same content is stored.

    Groups are not part of the fingerprint, so another ``--group-column`` may change them.

    Raises:
        StorageError: the folder cannot be written.
    """
    data, ends = TextArray.from_texts(comments.ids).flat
    tensors: Tensors = {
        "codes": np.ascontiguousarray(comments.codes, dtype=np.uint8),
        "groups": row_groups(comments),
        "is_grouped": _is_grouped(comments).astype(np.uint8),
        "ids": data,
        "id_ends": ends,
    }
    content, path = encode("rows", StoredRecord().model_dump_json(), tensors), folder / FILE
    try:
        is_stored = path.read_bytes() == content
    except OSError:  # missing or unreadable: write it
        is_stored = False
    if not is_stored:
        write_atomically(path, content)


def read_rows(folder: Path) -> StoredRows:
    """Read a table's rows from a protocol's folder.

    Raises:
        DamagedError: the file is damaged.
        StorageError: the file is missing, cannot be read, or was written by a newer toxbench.
    """
    path = folder / FILE
    remedy = "the same toxbench run again moves it aside and writes it, without training"
    with read_errors(path, remedy):
        if not path.exists():
            raise StorageError(
                f"{path} is missing; the same toxbench run again writes it, without training"
            )
        text, tensors = decode("rows", path.read_bytes())
        StoredRecord.from_json(text, path)
        return StoredRows(
            ids=TextArray.from_flat(tensors["ids"], tensors["id_ends"]),
            codes=tensors["codes"],
            groups=tensors["groups"],
            is_grouped=tensors["is_grouped"].astype(bool),
        )


def _is_grouped(comments: TextDataset) -> npt.NDArray[np.bool_]:
    if comments.groups is None:
        return np.zeros(len(comments.targets), dtype=bool)
    return np.array([group is not None for group in comments.groups], dtype=bool)


@dataclass(frozen=True)
class FailureStore:
    """The folder ``failures`` of a protocol."""

    folder: Path

    def write(self, key: CellKey, kind: str, reason: str) -> None:
        """Store the failure of a cell with the current time; secrets in the reason are removed.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        record = FailureRecord(key=key, kind=kind, reason=redact(reason), failed_at=finished)
        write_atomically(self.path(key), record.model_dump_json().encode("utf-8"))

    def remove(self, key: CellKey) -> None:
        """Remove the failure of a cell, if one is stored.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove {self.path(key)}: {error.strerror}") from error

    def path(self, key: CellKey) -> Path:
        """Return the file of a cell's failure, which need not exist."""
        return self.folder / f"{key.stem}.json"

    def paths(self) -> list[Path]:
        """Return the files of all failures, sorted by name."""
        return sorted(self.folder.glob("*.json"))

    def records(self) -> list[FailureRecord]:
        """Read all failures, sorted by file name.

        Raises:
            DamagedError: a file is damaged.
        """
        records = map(read_failure, self.paths())
        return [record for record in records if record is not None]


def read_failure(path: Path) -> FailureRecord | None:
    """Read a failure; None if another process has just removed the file.

    Raises:
        DamagedError: the file is damaged.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    remedy = "start the same toxbench run again, which moves it aside and trains its cell"
    with read_errors(path, remedy), suppress(FileNotFoundError):
        record = FailureRecord.from_json(path.read_bytes(), path)
        if record.key.stem != path.stem:
            raise ValueError("the file has the name of another cell")
        return record
    return None
