"""Stored failures: one small file for each failed cell, removed when the cell has a result."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from toxbench.errors import StorageError
from toxbench.records import CellKey, FailureRecord
from toxbench.store.repair import read_errors
from toxbench.util.atomic import write_atomically
from toxbench.util.text import redact


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
