"""Stored cells: one file each, written once and atomically, with a checksum.

A cell is a safetensors file: the probabilities of train, validation and test rows as tensors, the
record as JSON in its header. It is one file, so that it is stored completely or not at all. It is
not a pickle, so that reading it runs no code.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from toxbench.data.protocol import Protocol, fingerprint
from toxbench.errors import SettingsError, StorageError
from toxbench.records import PARTS, Audit, CellKey, CellRecord, StoredRecord
from toxbench.settings import Count, FrozenModel, validate_path
from toxbench.store.files import FILE as ROWS
from toxbench.store.files import (
    SUFFIX,
    CellReader,
    FailureStore,
    PartProbabilities,
    StoredRows,
    read_failure,
    read_rows,
    write_cell,
    write_rows,
)
from toxbench.store.folder import (
    DamagedError,
    check_writable,
    hold_lock,
    quarantine_damaged,
    refuse_special_files,
    remove_partial_files,
    write_owner,
)
from toxbench.store.models import ModelStore
from toxbench.util.atomic import make_folder, write_atomically

SUBSETS = "subsets"  # results on parts of the train rows, in the folder of a protocol
QUOTED = "quoted.toml"  # scores of publications, in the folder of a protocol


class FoldRows(FrozenModel):
    """Row numbers of one fold, counted from 0 in the order of the table."""

    train: tuple[Count, ...]
    validation: tuple[Count, ...]
    test: tuple[Count, ...]


class ProtocolRecord(StoredRecord):
    """A protocol as it is stored with its cells. It holds no comment."""

    name: str
    synthetic: bool
    fingerprint: str
    data_fingerprint: str
    rows: Count
    labels: tuple[str, ...]
    supports: dict[str, Count]
    test_supports: tuple[dict[str, Count], ...]
    folds: tuple[FoldRows, ...]
    audit: Audit

    @model_validator(mode="after")
    def _is_of_one_table(self) -> Self:
        supports = [set(self.supports), *map(set, self.test_supports)]
        if any(names != set(self.labels) for names in supports):
            raise ValueError("supports are of other labels")
        if len(self.test_supports) != len(self.folds):
            raise ValueError("supports are of other folds")
        audit = self.audit
        shared = audit.shared_groups.rows if audit.shared_groups else ()
        findings = (*audit.exact_copies, *audit.near_copies, *audit.label_conflicts, shared)
        parts = (getattr(fold, part) for fold in self.folds for part in PARTS)
        if any(max(rows) >= self.rows for rows in (*parts, *findings) if rows):
            raise ValueError("row numbers are beyond the table")
        return self

    @property
    def tested_supports(self) -> dict[str, int]:
        """Positive test rows of each label, over all folds."""
        return {label: sum(fold[label] for fold in self.test_supports) for label in self.labels}

    def describes(self, protocol: Protocol) -> bool:
        """Whether the record is of a protocol; the name of its table may differ."""
        expected = _protocol_fields(protocol)
        return {name: getattr(self, name) for name in expected} == expected


@dataclass(frozen=True)
class CellStore:
    """The folder of one protocol: ``protocol.json``, ``cells/``, ``models/``, the leaderboard.

    Attributes:
        folder: need not exist.
        reader: reads each cell once for all methods.
    """

    folder: Path
    reader: CellReader = field(default_factory=CellReader, compare=False, repr=False)

    @classmethod
    def for_protocol(cls, results: Path, name: str, fingerprint: str) -> "CellStore":
        """Return a protocol's folder below ``results``, which need not exist yet.

        ``name`` is that of the table, for a new folder.
        An existing folder is found by the fingerprint in its protocol, whatever its name; if the
        protocol is damaged or missing, by the fingerprint in its name.
        Raises as `refuse_special_files`.
        """
        short = fingerprint[:12]
        named = [cls(folder) for folder in sorted(results.glob(f"*-{short}"))]
        for store in named:
            refuse_special_files(store.folder)
        for store in (*named, *stores_below(results)):
            with suppress(StorageError):  # `prepare` reports it, if this is the folder
                refuse_special_files(store.protocol_path)
                if store.protocol().fingerprint == fingerprint:
                    return store
        new = cls(results / f"{_safe_folder_name(name)}-{short}")
        return named[0] if named else new

    def prepare(self, protocol: Protocol, synthetic: bool) -> list[str]:
        """Create the folder and store the protocol and its rows, unless they are stored already.

        Returns:
            one message for each damaged file that was moved aside.

        Raises:
            StorageError: the folder cannot be created or written, or was written by a newer
                toxbench; as `refuse_special_files`.
        """
        refuse_special_files(self.folder)
        check_writable(self.folder)
        check_writable(self.folder / "cells")
        for folder in (self.failures.folder, self.models.folder):
            if folder.is_dir():
                check_writable(folder)

        def check(path: Path) -> None:
            record = read_protocol(path)
            if record.fingerprint != protocol.fingerprint:
                raise StorageError(
                    f"{self.folder} has the name of protocol {protocol.fingerprint[:12]}, but "
                    f"holds results of {record.fingerprint[:12]}; rename it, or use another "
                    "--results"
                )
            if not record.describes(protocol):
                raise DamagedError(f"{path} is of another table")

        remedy = "it is written again from the table"
        messages = [
            *quarantine_damaged([self.protocol_path], check, remedy),
            *quarantine_damaged([self.folder / ROWS], lambda _: self.rows(), remedy),
        ]
        if not self.protocol_path.is_file():
            content = protocol_record(protocol, synthetic).model_dump_json()
            write_atomically(self.protocol_path, content.encode("utf-8"))
        write_rows(self.folder, protocol.comments)
        return messages

    def repair(self) -> list[str]:
        """Move damaged files aside and remove partial ones; the caller must hold the lock.

        Returns:
            one message for each damaged file or folder.

        Raises:
            StorageError: the folder cannot be written, or a newer toxbench wrote to it.
        """
        for folder in (
            self.folder, self.folder / "cells", self.failures.folder, self.models.folder,
        ):  # fmt: skip
            remove_partial_files(folder)
        cells = quarantine_damaged(
            self.paths(), self.reader.read, "a run of the cell computes it again"
        )
        failures = quarantine_damaged(
            self.failures.paths(), read_failure, "a run of its cell trains it again"
        )
        models = self.models.repair(lambda key: self.path(key).is_file())
        return [*cells, *failures, *models]

    @property
    def failures(self) -> FailureStore:
        """The store of failed cells."""
        return FailureStore(self.folder / "failures")

    @property
    def models(self) -> ModelStore:
        """The store of trained models."""
        return ModelStore(self.folder / "models")

    @property
    def protocol_path(self) -> Path:
        """The file of the stored protocol."""
        return self.folder / "protocol.json"

    def protocol(self) -> ProtocolRecord:
        """Read the stored protocol; raises as `read_protocol`."""
        return read_protocol(self.protocol_path)

    def rows(self) -> StoredRows:
        """Read ids, targets and groups; raises as `read_rows`."""
        return read_rows(self.folder)

    def path(self, key: CellKey) -> Path:
        """Return the file of a cell, which need not exist."""
        return self.folder / "cells" / f"{key.stem}{SUFFIX}"

    def paths(self) -> list[Path]:
        """Return the files of all stored cells, sorted by name."""
        return sorted((self.folder / "cells").glob(f"*{SUFFIX}"))

    def has(self, key: CellKey) -> bool:
        """Return whether the cell is stored and undamaged.

        Raises:
            StorageError: its file cannot be read, or a newer toxbench wrote it.
        """
        if not self.path(key).is_file():
            return False
        try:
            self.reader.read(self.path(key))
        except DamagedError:
            return False
        return True

    def write(self, record: CellRecord, probabilities: PartProbabilities) -> None:
        """Store a cell; ``probabilities`` are part -> float32 ``[row, label]``.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        write_cell(self.path(record.key), record, probabilities)

    def records(self) -> list[CellRecord]:
        """Read the records of all stored cells, sorted by file name.

        Raises:
            DamagedError: a file is damaged.
        """
        return [record for record, _ in self.cells()]

    def cells(self) -> Iterator[tuple[CellRecord, PartProbabilities]]:
        """Yield the record and probabilities of all stored cells, sorted by file name.

        Raises:
            DamagedError: a file is damaged.
        """
        for path in self.paths():
            yield self.reader.read(path)

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """Hold the folder's lock for writing, as `hold_lock` does; reading needs no lock.

        Raises:
            TryAgainError: another run holds the lock; the message has its process id.
            StorageError: the folder cannot be written; as `refuse_special_files`.
        """
        refuse_special_files(self.folder)
        make_folder(self.folder)
        path = self.folder / ".lock"
        with hold_lock(path, timeout), write_owner(path):
            yield


def read_protocol(path: Path) -> ProtocolRecord:
    """Read a stored protocol.

    Raises:
        DamagedError: the file is damaged.
        StorageError: it is missing, or a newer toxbench wrote it.
    """
    try:
        record = ProtocolRecord.from_json(path.read_bytes(), path)
        folds = ([fold.train, fold.validation, fold.test] for fold in record.folds)
        if record.fingerprint != fingerprint(record.data_fingerprint, folds):
            raise ValueError("the fingerprint is of something else")
    except OSError as error:
        raise StorageError(
            f"{path.parent} holds no results of toxbench (no protocol.json)"
        ) from error
    except (ValueError, OverflowError) as error:
        raise DamagedError(
            f"{path} is damaged; start the same toxbench run again, which moves it aside and "
            "writes it, without training"
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
    }


def find_store(path: Path) -> CellStore:
    """Return the store of a protocol's folder, or the latest store in a results folder.

    Raises:
        SettingsError: the path cannot be the name of a folder.
        StorageError: the folder contains no store; as `refuse_special_files`.
    """
    try:
        validate_path(path)
    except ValueError as error:
        raise SettingsError(f"invalid results folder: {error}") from error
    for store in (CellStore(path), *stores_below(path)):
        if store.protocol_path.is_file():
            is_named = store.folder == path  # by the user, and may be a link
            refuse_special_files(path.resolve() if is_named else store.folder)
            return store
    raise StorageError(f"{path} holds no results yet; start with: toxbench run")


def stores_below(results: Path) -> list[CellStore]:
    """Return the stores in a results folder, the last modified first."""
    protocols = sorted(results.glob("*/protocol.json"), key=_modification_time, reverse=True)
    return [CellStore(protocol.parent) for protocol in protocols]


def other_protocols(results: Path, store: CellStore) -> list[tuple[CellStore, ProtocolRecord]]:
    """Read the other protocols with results, newest first; skip those that cannot be read."""
    protocols: list[tuple[CellStore, ProtocolRecord]] = []
    for other in stores_below(results):
        if other.folder != store.folder:
            try:
                protocols.append((other, other.protocol()))
            except StorageError:
                continue
    return protocols


def _modification_time(protocol: Path) -> float:
    """Return the modification time of the leaderboard, or of the protocol if there is none."""
    leaderboard = protocol.with_name("leaderboard.json")
    return (leaderboard if leaderboard.is_file() else protocol).stat().st_mtime


def _safe_folder_name(name: str) -> str:
    """Return a table's name without suffix as ASCII letters, digits, '-' and '_', at most 40."""
    stem = name.rpartition(".")[0] or name
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in stem)
    return safe.strip("-")[:40] or "table"
