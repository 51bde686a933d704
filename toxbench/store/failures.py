"""Failed cells on the disk: one small file each, there until the cell has a result."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from toxbench.errors import StorageError
from toxbench.records import CellKey, FailureRecord
from toxbench.store.repair import DamagedError
from toxbench.util.atomic import write_atomically
from toxbench.util.redact import redact


@dataclass(frozen=True)
class FailureStore:
    """The folder ``failures`` beside a protocol's cells."""

    folder: Path

    def write(self, key: CellKey, kind: str, reason: str) -> None:
        """Note that a cell failed just now; the reason is stored without secrets.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        record = FailureRecord(key=key, kind=kind, reason=redact(reason), failed_at=finished)
        write_atomically(self.path(key), record.model_dump_json().encode("utf-8"))

    def remove(self, key: CellKey) -> None:
        """Forget a failure, if there was one: the cell has its result.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove {self.path(key)}: {error.strerror}") from error

    def path(self, key: CellKey) -> Path:
        """Where a failure is noted."""
        return self.folder / f"{key.stem}.json"

    def paths(self) -> list[Path]:
        """Where all of them are, in the order of file names."""
        return sorted(self.folder.glob("*.json"))

    def records(self) -> list[FailureRecord]:
        """Read all failures, in the order of file names.

        Raises:
            DamagedError: a file is not as it was written.
        """
        found = map(read_failure, self.paths())
        return [record for record in found if record is not None]


def read_failure(path: Path) -> FailureRecord | None:
    """Read a failure; None where it was just removed, because the cell has its result.

    Raises:
        DamagedError: the file is not as it was written.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    try:
        return FailureRecord.from_json(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DamagedError(
            f"{path} is damaged; the same toxbench run again moves it aside and tries its cell"
        ) from error
