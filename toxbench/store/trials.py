"""Trials on the disk: one JSON file each, written once, atomically, with its own checksum."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from toxbench.atomic import write_atomically
from toxbench.errors import StorageError
from toxbench.records import TrialRecord
from toxbench.store.lock import locked
from toxbench.store.upkeep import DamagedError, set_aside_damaged

SYNC = ".sync.lock"  # held by who brings a folder of trials and a database to the same state


@dataclass(frozen=True)
class TrialStore:
    """A folder of trial records; several processes may write to it."""

    folder: Path

    def write(self, record: TrialRecord) -> None:
        """Commit a trial.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        text = record.model_dump_json()
        content = {"sha256": _checksum(text), "record": text}
        name = f"trial-{record.number:04d}-{record.uid[:12]}.json"
        write_atomically(self.folder / name, json.dumps(content).encode("ascii"))

    def mend(self) -> list[str]:
        """Move damaged trials aside.

        Returns:
            one line for each.

        Raises:
            StorageError: the folder cannot be written, or a newer toxbench wrote to it.
        """
        then = "the trial comes back from the database, or is trained again"
        with locked(self.folder / SYNC):
            return list(set_aside_damaged(self.paths(), read_trial, then))

    def paths(self) -> list[Path]:
        """Where all committed trials are."""
        return sorted(self.folder.glob("trial-*.json"))

    def records(self) -> list[TrialRecord]:
        """Read every committed trial, in the order of their numbers.

        Raises:
            DamagedError: a file is not as it was written.
            StorageError: it cannot be read, or a newer toxbench wrote it.
        """
        records = [read_trial(path) for path in self.paths()]
        return sorted(records, key=lambda record: (record.number, record.uid))


def read_trial(path: Path) -> TrialRecord:
    """Read a trial; raises as `TrialStore.records`."""
    try:
        content = json.loads(path.read_bytes())
        if content["sha256"] != _checksum(content["record"]):
            raise ValueError("the checksum differs")
        return TrialRecord.read(content["record"], path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(
            f"{path} is damaged; the same toxbench tune again moves it aside and goes on"
        ) from error


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
