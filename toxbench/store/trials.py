"""Trials on the disk: one JSON file each, written once, atomically, with its own checksum."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from toxbench.atomic import write_atomically
from toxbench.errors import StorageError
from toxbench.records import TrialRecord


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

    def records(self) -> list[TrialRecord]:
        """Read every committed trial, in the order of their numbers.

        Raises:
            StorageError: a file is not as it was written.
        """
        records = [_read(path) for path in self.folder.glob("trial-*.json")]
        return sorted(records, key=lambda record: (record.number, record.uid))


def _read(path: Path) -> TrialRecord:
    try:
        content = json.loads(path.read_bytes())
        if content["sha256"] != _checksum(content["record"]):
            raise ValueError("the checksum differs")
        return TrialRecord.model_validate_json(content["record"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"{path} is damaged; remove the file and run the same command again"
        ) from error


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
