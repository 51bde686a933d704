"""Cells on the disk: one file each, written once, atomically, with its own checksum.

A cell is a safetensors file: the probabilities of train, validation and test rows as tensors, the
record as JSON in its header. One file, so that a cell is there whole or not at all; no pickle.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toxbench.data.protocol import Protocol, fingerprint
from toxbench.errors import SettingsError, StorageError
from toxbench.records import PARTS, Audit, CellKey, CellRecord, Part, StoredRecord
from toxbench.settings import FrozenModel, validate_path
from toxbench.store.failures import FailureStore, read_failure
from toxbench.store.lock import locked, write_owner
from toxbench.store.models import ModelStore
from toxbench.store.repair import (
    DamagedError,
    check_writable,
    quarantine_damaged,
    reject_symlinks,
    remove_partial_files,
)
from toxbench.store.rows import FILE as ROWS
from toxbench.store.rows import StoredRows, read_rows, write_rows
from toxbench.store.tensor_file import Tensors, decode, encode, read_tensor
from toxbench.util.atomic import make_folder, write_atomically

SUFFIX = ".safetensors"
Probabilities = Mapping[Part, npt.NDArray[np.float32]]


class FoldRows(FrozenModel):
    """Row numbers of one fold, counted from 0 in the order of the table."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


class ProtocolRecord(StoredRecord):
    """A protocol as it is stored beside its cells. It holds no comment."""

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
    audit: Audit

    @property
    def tested_supports(self) -> dict[str, int]:
        """Positive test rows of each label, over all folds."""
        return {label: sum(fold[label] for fold in self.test_supports) for label in self.labels}

    def describes(self, protocol: Protocol) -> bool:
        """Whether the record is of a protocol; the name of its table may differ."""
        expected = _protocol_fields(protocol)
        return {name: getattr(self, name) for name in expected} == expected


class CellDamagedError(DamagedError):
    """A cell file does not hold what was written."""


@dataclass(frozen=True)
class CellStore:
    """The folder of one protocol: ``protocol.json``, ``cells/``, ``models/``, the leaderboard."""

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

    def prepare(self, protocol: Protocol, synthetic: bool) -> list[str]:
        """Make the folder and store the protocol and its rows, if they are not there yet.

        Returns:
            one line for each of the two that was damaged and is moved aside.

        Raises:
            StorageError: the folder cannot be made or written, is a link or holds one, or a newer
                toxbench wrote it.
        """
        reject_symlinks(self.folder)
        check_writable(self.folder)
        check_writable(self.folder / "cells")
        for folder in (self.failures.folder, self.models.folder):
            if folder.is_dir():
                check_writable(folder)

        def check(path: Path) -> None:
            if not read_protocol(path).describes(protocol):
                raise DamagedError(f"{path} is of another table")

        then = "it is written again from the table"
        said = [
            *quarantine_damaged([self.protocol_path], check, then),
            *quarantine_damaged([self.folder / ROWS], lambda _: self.rows(), then),
        ]
        if not self.protocol_path.is_file():
            content = protocol_record(protocol, synthetic).model_dump_json()
            write_atomically(self.protocol_path, content.encode("utf-8"))
        write_rows(self.folder, protocol.comments)
        return said

    def repair(self) -> list[str]:
        """Move what is damaged aside, remove leftovers; to be called by who holds the lock.

        Returns:
            one line for each.

        Raises:
            StorageError: the folder cannot be written, or a newer toxbench wrote to it.
        """
        for folder in (
            self.folder, self.folder / "cells", self.failures.folder, self.models.folder,
        ):  # fmt: skip
            remove_partial_files(folder)
        cells = quarantine_damaged(self.paths(), read_cell, "a run of the cell computes it again")
        failures = quarantine_damaged(
            self.failures.paths(), read_failure, "a run of its cell tries it again"
        )
        models = self.models.repair(lambda key: self.path(key).is_file())
        return [*cells, *failures, *models]

    @property
    def failures(self) -> FailureStore:
        """The cells that failed."""
        return FailureStore(self.folder / "failures")

    @property
    def models(self) -> ModelStore:
        """The trained models that are kept."""
        return ModelStore(self.folder / "models")

    @property
    def protocol_path(self) -> Path:
        """The stored protocol."""
        return self.folder / "protocol.json"

    def protocol(self) -> ProtocolRecord:
        """Read the stored protocol.

        Raises:
            StorageError: it is missing or damaged, or a newer toxbench wrote it.
        """
        return read_protocol(self.protocol_path)

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
        """Whether the cell is stored, and whole.

        Raises:
            StorageError: its file cannot be read, or a newer toxbench wrote it.
        """
        if not self.path(key).is_file():
            return False
        try:
            read_cell(self.path(key))
        except CellDamagedError:
            return False
        return True

    def write(self, record: CellRecord, probabilities: Probabilities) -> None:
        """Store a cell.

        Args:
            record: everything but the probabilities.
            probabilities: part -> float32 ``[row, label]``.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        tensors: Tensors = {part: probabilities[part] for part in PARTS}
        content = encode("cell", record.model_dump_json(), tensors)
        write_atomically(self.path(record.key), content)

    def records(self) -> list[CellRecord]:
        """Read every stored record, in the order of file names.

        Raises:
            CellDamagedError: a file is not as it was written.
        """
        return [record for record, _ in self.cells()]

    def cells(self) -> Iterator[tuple[CellRecord, Probabilities]]:
        """Yield every stored record with its probabilities, in the order of file names.

        Every file is read and checked; of its probabilities, each part is read again when it is
        asked for, so that many cells of a large table can be looked at one after the other.

        Raises:
            CellDamagedError: a file is not as it was written.
        """
        for path in self.paths():
            yield read_cell(path)[0], _OnDisk(path)

    @contextmanager
    def lock(self, patience: float = 0) -> Iterator[None]:
        """Hold the folder for writing; readers are never kept waiting.

        Args:
            patience: seconds to wait for another run; infinity waits for its end.

        Raises:
            TryAgainError: another run holds it; the message says which.
            StorageError: the folder cannot be written, is a link or holds one.
        """
        reject_symlinks(self.folder)
        make_folder(self.folder)
        with locked(self._lock, patience), write_owner(self._lock):
            yield

    @property
    def _lock(self) -> Path:
        return self.folder / ".lock"


@dataclass(frozen=True)
class _OnDisk(Probabilities):
    """The probabilities of a cell that was checked; none of them are held."""

    path: Path

    def __getitem__(self, part: Part) -> npt.NDArray[np.float32]:
        if part not in PARTS:
            raise KeyError(part)
        try:
            return read_tensor(self.path, part)
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror}") from error
        except ValueError as error:  # it is another file than the one that was checked
            raise CellDamagedError(f"{self.path} was just changed; try again") from error

    def __iter__(self) -> Iterator[Part]:
        return iter(PARTS)

    def __len__(self) -> int:
        return len(PARTS)


def read_cell(path: Path) -> tuple[CellRecord, dict[Part, npt.NDArray[np.float32]]]:
    """Read a record and its probabilities.

    Raises:
        CellDamagedError: the file is not as it was written.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    try:
        text, tensors = decode("cell", path.read_bytes())
        record, probabilities = (
            CellRecord.from_json(text, path),
            {part: tensors[part] for part in PARTS},
        )
        if any(values.dtype != np.float32 or values.ndim != 2 for values in probabilities.values()):
            raise ValueError("probabilities are float32 [row, label]")
        return record, probabilities
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError) as error:
        raise CellDamagedError(
            f"{path} is damaged; the same toxbench run again moves it aside and computes it again"
        ) from error


def read_protocol(path: Path) -> ProtocolRecord:
    """Read a stored protocol.

    Raises:
        DamagedError: it is not as it was written.
        StorageError: it is missing, or a newer toxbench wrote it.
    """
    try:
        record = ProtocolRecord.from_json(path.read_bytes(), path)
        folds = ([fold.train, fold.validation, fold.test] for fold in record.folds)
        if record.fingerprint != fingerprint(record.data_fingerprint, folds, record.definitions):
            raise ValueError("the fingerprint is of something else")
    except OSError as error:
        raise StorageError(
            f"{path.parent} holds no results of toxbench (no protocol.json)"
        ) from error
    except (ValueError, OverflowError) as error:
        raise DamagedError(
            f"{path} is damaged; the same toxbench run again moves it aside and writes it, without "
            "training"
        ) from error
    return record


def protocol_record(protocol: Protocol, synthetic: bool) -> ProtocolRecord:
    """Describe a protocol without any comment."""
    from toxbench.data.audit import audit  # imports datasketch, which reading has no need of

    return ProtocolRecord(
        name=protocol.comments.name,
        synthetic=synthetic,
        audit=audit(protocol.comments, protocol.folds),
        **_protocol_fields(protocol),
    )


def _protocol_fields(protocol: Protocol) -> dict[str, Any]:
    """Return the fields that identify a protocol; the audit is left out because it takes time."""
    comments = protocol.comments
    labels = comments.labels
    return {
        "fingerprint": protocol.fingerprint,
        "data_fingerprint": protocol.data_fingerprint,
        "rows": len(comments),
        "labels": labels,
        "supports": comments.supports,
        "test_supports": tuple(
            dict(zip(labels, comments.targets[fold.test].sum(axis=0).tolist(), strict=True))
            for fold in protocol.folds
        ),
        "folds": tuple(
            FoldRows(
                train=tuple(fold.train.tolist()),
                validation=tuple(fold.validation.tolist()),
                test=tuple(fold.test.tolist()),
            )
            for fold in protocol.folds
        ),
        "definitions": dict(protocol.definitions),
    }


def _tame(name: str) -> str:
    """Make a table's name safe as a folder name: letters, digits, '-' and '_', at most 40."""
    stem = name.rpartition(".")[0] or name
    tame = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in stem)
    return tame.strip("-")[:40] or "table"


def find_store(path: Path) -> CellStore:
    """Return the store in a folder: the folder itself, or the one below it that changed last.

    Raises:
        SettingsError: no folder could be called that.
        StorageError: there is none.
    """
    try:
        validate_path(path)
    except ValueError as error:
        raise SettingsError(f"no folder of results: {error}") from error
    stores = [CellStore(path), *stores_below(path)]
    found = next((store for store in stores if store.protocol_path.is_file()), None)
    if found is None:
        raise StorageError(f"{path} holds no results yet; start with: toxbench run")
    return found


def stores_below(results: Path) -> list[CellStore]:
    """Return the stores in the folders of a folder, the one that changed last first."""
    below = sorted(results.glob("*/protocol.json"), key=_changed, reverse=True)
    return [CellStore(protocol.parent) for protocol in below]


def _changed(protocol: Path) -> float:
    """When the leaderboard beside it was written, or else the protocol itself."""
    written = protocol.with_name("leaderboard.json")
    return (written if written.is_file() else protocol).stat().st_mtime
