"""Trials on the disk: one JSON file each, written once, atomically, with its own checksum."""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toxbench.errors import StorageError
from toxbench.records import TrialRecord, TunedSettings
from toxbench.store.lock import locked
from toxbench.store.repair import DamagedError, quarantine_damaged
from toxbench.util.atomic import write_atomically

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

    def repair(self) -> list[str]:
        """Move damaged trials aside.

        Returns:
            one line for each.

        Raises:
            StorageError: the folder cannot be written, or a newer toxbench wrote to it.
        """
        then = "the trial comes back from the database, or is trained again"
        with locked(self.folder / SYNC):
            return list(quarantine_damaged(self.paths(), read_trial, then))

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
        return TrialRecord.from_json(content["record"], path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(
            f"{path} is damaged; the same toxbench tune again moves it aside and goes on"
        ) from error


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


FILE = "tuned.toml"
TUNING = "tuning"  # folder of a protocol's studies, below the protocol's own


def write_tuned(
    path: Path, tuned: TunedSettings, remarks: Sequence[str], origins: Mapping[str, str]
) -> None:
    """Write settings with where they came from.

    Args:
        path: of the file.
        tuned: what was found.
        remarks: lines of comment at the top.
        origins: training setting -> comment behind it.

    Raises:
        StorageError: the folder cannot be written.
    """
    lines = [f"# {_one_line(remark)}" for remark in remarks]
    content = tuned.model_dump(mode="json")
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    lines += [f"{name} = {_toml(value)}" for name, value in content.items() if name not in tables]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *_rows(values, origins if table == "train" else {})]
    write_atomically(path, ("\n".join(lines) + "\n").encode("utf-8", "replace"))


def read_tuned(path: Path) -> TunedSettings:
    """Read what `write_tuned` wrote.

    Raises:
        DamagedError: the file makes no sense.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    try:
        return TunedSettings.from_content(tomllib.loads(path.read_text(encoding="utf-8")), path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            f"{path} is damaged; the same toxbench tune again moves it aside and writes it"
        ) from error


def find_tuned(folder: Path, protocol: str, backbone: str, weights: str) -> TunedSettings | None:
    """Return the latest settings found for a backbone with these weights, or None.

    Args:
        folder: of the protocol.
        protocol: its fingerprint; settings found on other rows are of no use.
        backbone: its name.
        weights: identity of what it starts from; settings for other weights are of no use.

    Raises:
        StorageError: a file is damaged.
    """
    found = map(read_tuned, sorted((folder / TUNING).glob(f"*/{FILE}")))
    wanted = (protocol, backbone, weights)
    fitting = [t for t in found if (t.protocol, t.backbone, t.weights.identity) == wanted]
    return max(fitting, key=lambda tuned: tuned.finished_at, default=None)


def _rows(values: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    for name, value in values.items():
        if value is not None:  # TOML has no null: what is unset is left out
            origin = f"  # {_one_line(origins[name])}" if name in origins else ""
            yield f"{_key(name)} = {_toml(value)}{origin}"


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalpha() else json.dumps(name)


def _toml(value: object) -> str:
    """Write a string, number, bool or list; for these TOML is JSON, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    """Keep a comment from ending early."""
    return "".join(c if c.isprintable() else " " for c in text)
