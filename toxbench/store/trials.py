"""Stored trials and tuned settings of hyperparameter searches.

A trial is a JSON file that is written once and atomically, with a checksum. Tuned settings are a
TOML file for people to read and edit.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toxbench.records import TrialRecord, TunedSettings
from toxbench.store.folder import hold_lock, quarantine_damaged, read_errors
from toxbench.util.atomic import write_atomically

TUNING = "tuning"  # folder of a protocol's studies, below the protocol's folder
TUNED_FILE = "tuned.toml"
SYNC_LOCK = ".sync.lock"  # held while a folder of trials and a database are synchronised


@dataclass(frozen=True)
class TrialStore:
    """A folder of trial records; several processes may write to it."""

    folder: Path

    def write(self, record: TrialRecord) -> None:
        """Store a trial.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        text = record.model_dump_json()
        content = {"sha256": _checksum(text), "record": text}
        write_atomically(self.folder / _file_name(record), json.dumps(content).encode("ascii"))

    def repair(self) -> list[str]:
        """Move damaged trials aside.

        Returns:
            one message for each damaged trial.

        Raises:
            StorageError: the folder cannot be written, or a newer toxbench wrote to it.
        """
        remedy = "the trial is restored from the database, or trained again"
        with hold_lock(self.folder / SYNC_LOCK):
            return list(quarantine_damaged(self.paths(), read_trial, remedy))

    def paths(self) -> list[Path]:
        """Return the files of all stored trials, sorted by name."""
        return sorted(self.folder.glob("trial-*.json"))

    def records(self) -> list[TrialRecord]:
        """Read all stored trials, sorted by trial number.

        Raises:
            DamagedError: a file is damaged.
            StorageError: it cannot be read, or a newer toxbench wrote it.
        """
        records = [read_trial(path) for path in self.paths()]
        return sorted(records, key=lambda record: (record.number, record.uid))


def read_trial(path: Path) -> TrialRecord:
    """Read a trial.

    Raises:
        DamagedError: the file is damaged.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    remedy = "start the same toxbench tune again, which moves it aside and resumes the search"
    with read_errors(path, remedy):
        content = json.loads(path.read_bytes())
        if content["sha256"] != _checksum(content["record"]):
            raise ValueError("the checksum differs")
        record = TrialRecord.from_json(content["record"], path)
        if path.name != _file_name(record):
            raise ValueError("the file has the name of another trial")
        return record


def write_tuned(
    path: Path, tuned: TunedSettings, remarks: Sequence[str], origins: Mapping[str, str]
) -> None:
    """Write tuned settings with comments on their origin.

    ``remarks`` are lines at the top of the file; ``origins`` is setting -> end of its line.

    Raises:
        StorageError: the folder cannot be written.
    """
    lines = [f"# {_one_line(remark)}" for remark in remarks]
    content = tuned.model_dump(mode="json")
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    lines += [f"{name} = {_toml(value)}" for name, value in content.items() if name not in tables]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *_table_lines(values, origins if table == "train" else {})]
    write_atomically(path, ("\n".join(lines) + "\n").encode("utf-8", "replace"))


def read_tuned(path: Path) -> TunedSettings:
    """Read a file of `write_tuned`, which may have been edited.

    Raises:
        DamagedError: the file is not valid TOML or contains invalid settings.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    remedy = "start the same toxbench tune again, which moves it aside and writes it again"
    with read_errors(path, remedy):
        return TunedSettings.from_content(tomllib.loads(path.read_text(encoding="utf-8")), path)


def find_tuned(
    folder: Path, protocol: str, backbone: str, weights: str, fold: int = 0
) -> TunedSettings | None:
    """Return the latest settings that were tuned for a backbone with these weights, or None.

    Args:
        folder: the protocol's folder.
        protocol: its fingerprint; settings tuned on other rows are skipped.
        backbone: its name.
        weights: identity of its initial weights; settings tuned for other weights are skipped.
        fold: of the protocol, without whose test rows they were tuned.

    Raises:
        StorageError: a file is damaged.
    """
    candidates = map(read_tuned, sorted((folder / TUNING).glob(f"*/{TUNED_FILE}")))
    key = (protocol, backbone, weights, fold)
    matching = [
        t for t in candidates if (t.protocol, t.backbone, t.weights.identity, t.fold) == key
    ]
    return max(matching, key=lambda tuned: tuned.finished_at, default=None)


def _file_name(record: TrialRecord) -> str:
    return f"trial-{record.number:04d}-{record.uid[:12]}.json"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _table_lines(values: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    for name, value in values.items():
        if value is not None:  # TOML has no null, so unset values are left out
            origin = f"  # {_one_line(origins[name])}" if name in origins else ""
            yield f"{_toml_key(name)} = {_toml(value)}{origin}"


def _toml_key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalpha() else json.dumps(name)


def _toml(value: object) -> str:
    """Format a string, number, bool or list; as TOML these equal JSON, except for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    """Replace line breaks and control characters, which would end a comment early."""
    return "".join(c if c.isprintable() else " " for c in text)
