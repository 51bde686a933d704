"""Cells on the disk: one file each, written once, atomically, with its own checksum.

A cell is a safetensors file: the probabilities of train, validation and test rows as tensors, the
record as JSON in its header. One file, so that a cell is there whole or not at all; no pickle.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from pydantic import ValidationError

from toxbench.atomic import write_atomically
from toxbench.data.split import Protocol
from toxbench.errors import StorageError, TryAgainError
from toxbench.records import PARTS, Audit, CellKey, CellRecord, Part
from toxbench.settings import Frozen
from toxbench.store.rows import StoredRows, read_rows, write_rows
from toxbench.store.sealed import Tensors, seal, unseal

SUFFIX = ".safetensors"
Probabilities = Mapping[Part, npt.NDArray[np.float32]]


class FoldRows(Frozen):
    """Row numbers of one fold, counted from 0 in the order of the table."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


class ProtocolRecord(Frozen):
    """A protocol as it is stored beside its cells. It holds no comment."""

    schema_version: int = 1
    name: str
    synthetic: bool
    fingerprint: str
    data_fingerprint: str
    rows: int
    labels: tuple[str, ...]
    supports: dict[str, int]
    test_supports: tuple[dict[str, int], ...]
    folds: tuple[FoldRows, ...]
    definitions: dict[str, str]
    audit: Audit | None = None  # folders of earlier versions have none

    @property
    def tested_supports(self) -> dict[str, int]:
        """Positive test rows of each label, over all folds."""
        return {label: sum(fold[label] for fold in self.test_supports) for label in self.labels}


class CellDamagedError(StorageError):
    """A cell file does not hold what was written."""


@dataclass(frozen=True)
class CellStore:
    """The folder of one protocol: ``protocol.json``, ``cells/`` and the leaderboard."""

    folder: Path

    @classmethod
    def for_protocol(cls, results: Path, protocol: Protocol) -> "CellStore":
        """Return the protocol's folder below ``results``, which need not be there yet.

        The folder is found by its fingerprint; the table's name before it is for people.
        """
        short = protocol.fingerprint[:12]
        there = sorted(results.glob(f"*-{short}"))
        folder = there[0] if there else results / f"{_tame(protocol.comments.name)}-{short}"
        return cls(folder)

    def prepare(self, protocol: Protocol, synthetic: bool) -> None:
        """Make the folder and store the protocol and its rows, if they are not there yet.

        Raises:
            StorageError: the folder cannot be made or written.
        """
        if not self.protocol_path.is_file():
            content = protocol_record(protocol, synthetic).model_dump_json()
            write_atomically(self.protocol_path, content.encode("utf-8"))
        write_rows(self.folder, protocol.comments)

    @property
    def protocol_path(self) -> Path:
        """The stored protocol."""
        return self.folder / "protocol.json"

    def protocol(self) -> ProtocolRecord:
        """Read the stored protocol.

        Raises:
            StorageError: it is missing or damaged.
        """
        try:
            return ProtocolRecord.model_validate_json(self.protocol_path.read_bytes())
        except OSError as error:
            raise StorageError(
                f"{self.folder} holds no results of toxbench (no protocol.json)"
            ) from error
        except ValidationError as error:
            raise StorageError(f"{self.protocol_path} is damaged; remove the folder") from error

    def rows(self) -> StoredRows:
        """Read ids, targets and groups; raises StorageError where they are missing or damaged."""
        return read_rows(self.folder)

    def path(self, key: CellKey) -> Path:
        """Where a cell is, or will be."""
        return self.folder / "cells" / f"{key.stem}{SUFFIX}"

    def paths(self) -> list[Path]:
        """Where all stored cells are, in the order of file names."""
        return sorted((self.folder / "cells").glob(f"*{SUFFIX}"))

    def has(self, key: CellKey) -> bool:
        """Whether the cell was stored."""
        return self.path(key).is_file()

    def write(self, record: CellRecord, probabilities: Probabilities) -> None:
        """Store a cell.

        Args:
            record: everything but the probabilities.
            probabilities: part -> float32 ``[row, label]``.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        tensors: Tensors = {part: probabilities[part] for part in PARTS}
        content = seal("cell", record.model_dump_json(), tensors)
        write_atomically(self.path(record.key), content)

    def records(self) -> list[CellRecord]:
        """Read every stored record, in the order of file names.

        Raises:
            CellDamagedError: a file is not as it was written.
        """
        return [record for record, _ in self.cells()]

    def cells(self) -> Iterator[tuple[CellRecord, dict[Part, npt.NDArray[np.float32]]]]:
        """Yield every stored record with its probabilities, in the order of file names.

        Raises:
            CellDamagedError: a file is not as it was written.
        """
        for path in self.paths():
            yield read_cell(path)

    @contextmanager
    def lock(self, patience: float = 0) -> Iterator[None]:
        """Hold the folder for writing; readers are never kept waiting.

        Args:
            patience: seconds to wait for another run; infinity waits for its end.

        Raises:
            TryAgainError: another run holds it.
            StorageError: the lock file cannot be made.
        """
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=-1 if patience == math.inf else patience)
        except Timeout as error:
            raise TryAgainError(
                f"another run is writing to {self.folder}; wait for it, or use --results"
            ) from error
        except OSError as error:
            raise StorageError(f"cannot write {self.folder}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()


def read_cell(path: Path) -> tuple[CellRecord, dict[Part, npt.NDArray[np.float32]]]:
    """Read a record and its probabilities.

    Raises:
        CellDamagedError: the file is not as it was written.
    """
    try:
        text, tensors = unseal("cell", path.read_bytes())
        return CellRecord.model_validate_json(text), {part: tensors[part] for part in PARTS}
    except (OSError, ValueError, KeyError) as error:
        raise CellDamagedError(
            f"{path} is damaged; remove the file and run the same command again"
        ) from error


def protocol_record(protocol: Protocol, synthetic: bool) -> ProtocolRecord:
    """Describe a protocol without any comment."""
    from toxbench.data.audit import audit  # imports datasketch, which reading has no need of

    comments = protocol.comments
    labels = comments.labels
    return ProtocolRecord(
        name=comments.name,
        synthetic=synthetic,
        fingerprint=protocol.fingerprint,
        data_fingerprint=protocol.data_fingerprint,
        rows=len(comments),
        labels=labels,
        supports=comments.supports,
        test_supports=tuple(
            dict(zip(labels, comments.targets[f.test].sum(axis=0).tolist(), strict=True))
            for f in protocol.folds
        ),
        folds=tuple(
            FoldRows(
                train=tuple(f.train.tolist()),
                validation=tuple(f.validation.tolist()),
                test=tuple(f.test.tolist()),
            )
            for f in protocol.folds
        ),
        definitions=dict(protocol.definitions),
        audit=audit(comments, protocol.folds),
    )


def _tame(name: str) -> str:
    """Make a table's name safe as a folder name: letters, digits, '-' and '_', at most 40."""
    stem = name.rpartition(".")[0] or name
    tame = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in stem)
    return tame.strip("-")[:40] or "table"
