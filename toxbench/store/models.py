"""Stored models: one folder each in ``models`` next to the cells, written atomically.

The process that trains a model writes its files to a temporary folder. The process that holds the
protocol's lock adds the model card and a record with a checksum of every file, and renames the
folder. A model is stored before its cell, and removed after the cell of a better model is stored:
a run that is killed in between and resumed ends with the same models as an uninterrupted run.
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from toxbench.errors import StorageError
from toxbench.records import (
    FIXED_RULE,
    Calibration,
    CellKey,
    CellRecord,
    StoredRecord,
    WeightsRecord,
)
from toxbench.settings import Count, Distribution, LongText, Number, Thresholds
from toxbench.store.folder import DamagedError, quarantine
from toxbench.util.atomic import TEMPORARY_SUFFIX, publish_folder, write_error
from toxbench.util.content import sha256_file

RECORD, CARD = "toxbench.json", "README.md"
WEIGHTS, PROBABILITIES = "model.safetensors", "probabilities.safetensors"
SavePolicy = Literal["best", "all"]
_FOLDER_NAME = re.compile(r".+-fold\d+-seed\d+")


class ModelRecord(StoredRecord):
    """Description of a stored model; it contains neither comments nor paths."""

    key: CellKey
    saved: SavePolicy = Field(
        description="best: removed when another model of its candidate has a higher score"
    )
    fingerprint: str = Field(description="of the protocol that it was evaluated with")
    synthetic: bool = Field(description="trained on the built-in sample")
    distribution: Distribution = Field(description="of the backbone's plugin")
    weights: WeightsRecord
    tuned: bool
    labels: tuple[str, ...]
    calibration: Calibration = Field(description="of the probabilities that it predicts")
    thresholds: Thresholds = Field(
        description="rule -> threshold per label, for calibrated probabilities"
    )
    max_length: Count = Field(ge=3, description="tokens; longer comments are cut")
    long_text: LongText = Field(description="what is read of longer comments")
    precision: Literal["bf16", "fp32"] = Field(description="in which the cell was evaluated")
    score: Number | None = Field(
        description="mean of micro-F1 and subset accuracy on validation rows; None without any"
    )
    sha256: dict[str, str] = Field({}, description="file -> hash, of every other file")
    checksum: str = Field("", description="sha256 of this record without the checksum")

    @property
    def title(self) -> str:
        """The backbone's name, followed by "(tuned)" if its settings were searched."""
        return f"{self.key.candidate} (tuned)" if self.tuned else self.key.candidate

    @property
    def sort_key(self) -> tuple[float, str, str, int, int]:
        """Sorts models by descending validation score, then by cell key."""
        score = -math.inf if self.score is None else self.score
        return (-score, self.key.candidate, self.key.digest, self.key.fold, self.key.seed)

    def with_checksum(self) -> "ModelRecord":
        """Return a copy with its checksum."""
        bare = self.model_copy(update={"checksum": ""})
        digest = hashlib.sha256(bare.model_dump_json().encode("utf-8")).hexdigest()
        return self.model_copy(update={"checksum": digest})


def validation_score(record: CellRecord) -> float | None:
    """Return the validation score of a cell's last epoch; None without validation rows."""
    return record.epochs[-1].validation.get("headline") if record.epochs else None


@dataclass(frozen=True)
class ModelStore:
    """The folder ``models`` of a protocol."""

    folder: Path

    def temporary_path(self, key: CellKey) -> Path:
        """Return the folder to write a model to while it is trained; one process per key."""
        return self.folder / f".{key.stem}{TEMPORARY_SUFFIX}"

    def path(self, key: CellKey) -> Path:
        """Return the folder of a model, which need not exist."""
        return self.folder / key.stem

    def paths(self) -> list[Path]:
        """Return the folders of all models, sorted by name."""
        return sorted(p for p in self.folder.glob("[!.]*") if _FOLDER_NAME.fullmatch(p.name))

    def records(self) -> list[ModelRecord]:
        """Read the records of all models, sorted by descending validation score.

        Raises:
            DamagedError, StorageError: as `read_model_record`.
        """
        return sorted(map(read_model_record, self.paths()), key=lambda record: record.sort_key)

    def publish(self, record: ModelRecord, card: Callable[[], str]) -> None:
        """Store a model from its temporary folder, or discard it if a better one is stored.

        Only a model that is saved as ``best`` is discarded, without making its model card.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        temporary = self.temporary_path(record.key)
        try:
            if record.saved == "best" and self._is_superseded(record):
                shutil.rmtree(temporary)
                return
            self._publish(temporary, record, card())
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise write_error(self.path(record.key), error) from error

    def remove_superseded(self, key: CellKey) -> None:
        """Remove the models of a key's candidate that were saved as ``best`` and no longer are.

        Raises:
            StorageError: a model cannot be removed.
        """
        records = [r for r in self.records() if _candidate(r.key) == _candidate(key)]
        for record in records[1:]:
            if record.saved == "best":
                self._remove(record.key)

    def repair(self, has_cell: Callable[[CellKey], bool]) -> Iterator[str]:
        """Move damaged models aside; remove superseded models and models without a cell.

        Yields:
            one message for each damaged model.

        Raises:
            StorageError: the folder cannot be written, or a newer toxbench wrote to it.
        """
        for path in self.paths():
            try:
                record = read_model_record(path)
            except DamagedError:
                yield (
                    f"{path} was damaged and is now {quarantine(path).name}; its cell no longer "
                    "has a model"
                )
            else:
                if not has_cell(record.key):
                    self._remove(record.key)
        for key in {_candidate(record.key): record.key for record in self.records()}.values():
            self.remove_superseded(key)

    def _is_superseded(self, record: ModelRecord) -> bool:
        records = (r for r in self.records() if _candidate(r.key) == _candidate(record.key))
        return any(stored.sort_key < record.sort_key for stored in records)

    def _publish(self, temporary: Path, record: ModelRecord, card: str) -> None:
        (temporary / CARD).write_text(card, encoding="utf-8")
        hashes = {path.name: sha256_file(path) for path in sorted(temporary.iterdir())}
        complete = record.model_copy(update={"sha256": hashes}).with_checksum()
        (temporary / RECORD).write_text(complete.model_dump_json(indent=2), encoding="utf-8")
        if self.path(record.key).exists():  # its cell was removed in order to be computed again
            self._remove(record.key)
        publish_folder(temporary, self.path(record.key))

    def _remove(self, key: CellKey) -> None:
        """Remove a model; it is renamed first, so that no half of it is taken for a model."""
        path = self.path(key)
        renamed = self.folder / f".{key.stem}-removed{TEMPORARY_SUFFIX}"
        try:
            os.replace(path, renamed)
            shutil.rmtree(renamed)
        except OSError as error:
            raise StorageError(f"cannot remove {path}: {error.strerror}") from error


def read_model_record(folder: Path) -> ModelRecord:
    """Read the record of a stored model; its other files are not read.

    Raises:
        DamagedError: the record is missing or damaged.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    with _read_errors(folder, RECORD):
        path = folder / RECORD
        record = ModelRecord.from_json(path.read_bytes(), path)
        if record.with_checksum() != record or record.key.stem != folder.name:
            raise ValueError("the checksum or the folder's name does not match")
        if len(record.thresholds[FIXED_RULE]) != len(record.labels) or WEIGHTS not in record.sha256:
            raise ValueError("thresholds or the checksum of the weights are missing")
        return record


def check_model(folder: Path, record: ModelRecord) -> None:
    """Compare every file of a model with its checksum.

    Raises:
        DamagedError: a file is missing or damaged.
        StorageError: a file cannot be read.
    """
    for name, sha256 in record.sha256.items():
        with _read_errors(folder, name):
            if sha256_file(folder / name) != sha256:
                raise ValueError("the checksum does not match")


@contextmanager
def _read_errors(folder: Path, name: str) -> Iterator[None]:
    """Convert the errors of reading a file of a model."""
    try:
        yield
    except FileNotFoundError as error:
        raise DamagedError(_damage_message(folder, f"{name} is missing")) from error
    except OSError as error:
        raise StorageError(f"cannot read {folder / name}: {error.strerror}") from error
    except (ValueError, LookupError) as error:
        raise DamagedError(_damage_message(folder, f"{name} has a wrong checksum")) from error


def _damage_message(folder: Path, reason: str) -> str:
    return (
        f"the model {folder} is damaged: {reason}; remove it and its cell, "
        f"{folder.parent.parent / 'cells' / folder.name}.safetensors, and start the same toxbench "
        "run again, which trains this cell again"
    )


def _candidate(key: CellKey) -> tuple[str, str]:
    return key.candidate, key.digest
