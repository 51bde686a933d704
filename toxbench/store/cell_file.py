"""The file of a cell: the record and the probabilities, with a checksum over both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toxbench.errors import StorageError
from toxbench.records import PARTS, CellRecord, Part
from toxbench.store.repair import DamagedError, read_errors
from toxbench.store.tensor_file import Tensors, decode, encode, read_tensor
from toxbench.util.atomic import write_atomically

SUFFIX = ".safetensors"
PartProbabilities = Mapping[Part, npt.NDArray[np.float32]]  # part -> [row, label]
_MEMORY_BYTES = 256 * 2**20
_REMEDY = "start the same toxbench run again, which moves it aside and computes it again"
_Stamp = tuple[int, int, int]  # inode, size and time of the last change


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
