"""Trained models on the disk: one folder each, there whole or not at all, beside the cells.

The process that trained a model writes its weights into a temporary folder; the one that holds the
lock adds what is known of the cell, with a hash of every file, and renames the folder. A model is
there before its cell is, and goes after a better one's cell is there: a run that is killed in
between and taken up again ends with the models of an undisturbed one.
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from toxbench.errors import StorageError
from toxbench.records import CellKey, CellRecord, StoredRecord, WeightsRecord
from toxbench.store.repair import DamagedError, quarantine
from toxbench.util.atomic import TEMPORARY_SUFFIX, sync_folder, write_error

RECORD, CARD = "toxbench.json", "README.md"
WEIGHTS, PROBABILITIES = "model.safetensors", "probabilities.safetensors"
Saved = Literal["best", "all"]
_STEM = re.compile(r".+-fold\d+-seed\d+")


class ModelRecord(StoredRecord):
    """What is known of a saved model; it holds no comment and no path."""

    key: CellKey
    saved: Saved = Field(description="best: removed when another of its candidate is better")
    fingerprint: str = Field(description="of the protocol that it was measured with")
    synthetic: bool = Field(description="trained on the built-in sample")
    distribution: str = Field(description="name and version of the backbone plugin's distribution")
    weights: WeightsRecord
    tuned: bool
    labels: tuple[str, ...]
    thresholds: dict[str, tuple[float, ...]] = Field(description="rule -> threshold per label")
    max_length: int = Field(description="tokens; longer comments are cut")
    precision: Literal["bf16", "fp32"] = Field(description="in which the cell was evaluated")
    score: float | None = Field(
        description="mean of micro-F1 and subset accuracy on validation rows; None without any"
    )
    sha256: dict[str, str] = Field({}, description="file -> hash, of every other file")
    checksum: str = Field("", description="sha256 of this record without the checksum")

    @property
    def title(self) -> str:
        """The backbone's name, and whether its settings were searched."""
        return f"{self.key.candidate} (tuned)" if self.tuned else self.key.candidate

    @property
    def rank(self) -> tuple[float, str, str, int, int]:
        """What sorts models, the best on validation rows first; of equal ones, the first key."""
        score = -math.inf if self.score is None else self.score
        return (-score, self.key.candidate, self.key.digest, self.key.fold, self.key.seed)

    def sealed(self) -> "ModelRecord":
        """Return it with its checksum."""
        bare = self.model_copy(update={"checksum": ""})
        digest = hashlib.sha256(bare.model_dump_json().encode("utf-8")).hexdigest()
        return self.model_copy(update={"checksum": digest})


def validation_score(record: CellRecord) -> float | None:
    """Return the score on validation rows of the epoch that was kept; None without such rows."""
    scores = [e.validation.get("headline") for e in record.epochs if e.epoch == record.best_epoch]
    return scores[0] if scores else None


@dataclass(frozen=True)
class ModelStore:
    """The folder ``models`` beside a protocol's cells."""

    folder: Path

    def making(self, key: CellKey) -> Path:
        """Where the process that trains a cell writes its model; never two of them at once."""
        return self.folder / f".{key.stem}{TEMPORARY_SUFFIX}"

    def path(self, key: CellKey) -> Path:
        """Where a model is, or would be."""
        return self.folder / key.stem

    def paths(self) -> list[Path]:
        """Where all models are, in the order of names."""
        return sorted(p for p in self.folder.glob("[!.]*") if _STEM.fullmatch(p.name))

    def records(self) -> list[ModelRecord]:
        """Read what is known of every model, the best on validation rows first.

        Raises:
            DamagedError, StorageError: as `read_model`.
        """
        return sorted(map(read_model, self.paths()), key=lambda record: record.rank)

    def take(self, record: ModelRecord, card: Callable[[], str]) -> None:
        """Keep the model that was made for a cell, unless a better one makes it needless.

        Args:
            record: without hashes.
            card: returns the model card; called for a model that is kept.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        made = self.making(record.key)
        try:
            if record.saved == "best" and self._is_beaten(record):
                shutil.rmtree(made)
                return
            self._publish(made, record, card())
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            raise write_error(self.path(record.key), error) from error

    def remove_beaten(self, key: CellKey) -> None:
        """Remove the models of a key's candidate that ``best`` saved and another one beats.

        Raises:
            StorageError: one cannot be removed.
        """
        own = [r for r in self.records() if _candidate(r.key) == _candidate(key)]
        for record in own[1:]:
            if record.saved == "best":
                self._remove(record.key)

    def repair(self, has_cell: Callable[[CellKey], bool]) -> Iterator[str]:
        """Remove what a killed run left, and move damaged models aside.

        Args:
            has_cell: whether the cell of a key is stored.

        Yields:
            one line for each that was damaged.

        Raises:
            StorageError: the folder cannot be written, or a newer toxbench wrote to it.
        """
        for path in self.paths():
            try:
                record = read_model(path)
            except DamagedError:
                yield (
                    f"{path} was damaged and is now {quarantine(path).name}; its cell has no model "
                    "any more"
                )
            else:
                if not has_cell(record.key):
                    self._remove(record.key)
        for key in {_candidate(record.key): record.key for record in self.records()}.values():
            self.remove_beaten(key)

    def _is_beaten(self, record: ModelRecord) -> bool:
        own = (r for r in self.records() if _candidate(r.key) == _candidate(record.key))
        return any(other.rank < record.rank for other in own)

    def _publish(self, made: Path, record: ModelRecord, card: str) -> None:
        (made / CARD).write_text(card, encoding="utf-8")
        hashes = {path.name: _sha256(path) for path in sorted(made.iterdir())}
        sealed = record.model_copy(update={"sha256": hashes}).sealed()
        (made / RECORD).write_text(sealed.model_dump_json(indent=2), encoding="utf-8")
        for path in made.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(made)
        if self.path(record.key).exists():  # of a cell that was removed to be computed again
            self._remove(record.key)
        os.replace(made, self.path(record.key))
        sync_folder(self.folder)

    def _remove(self, key: CellKey) -> None:
        """Remove a model, under another name first: half of one is none."""
        path = self.path(key)
        going = self.folder / f".{key.stem}-removed{TEMPORARY_SUFFIX}"
        try:
            os.replace(path, going)
            shutil.rmtree(going)
        except OSError as error:
            raise StorageError(f"cannot remove {path}: {error.strerror}") from error


def read_model(folder: Path) -> ModelRecord:
    """Read what is known of a model; its other files are not looked at.

    Raises:
        DamagedError: it is not as it was written.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    path = folder / RECORD
    try:
        record = ModelRecord.from_json(path.read_bytes(), path)
        if record.sealed() != record or record.key.stem != folder.name:
            raise ValueError("the checksum is of something else")
    except FileNotFoundError as error:
        raise DamagedError(_damaged(folder, f"{RECORD} is missing")) from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DamagedError(_damaged(folder, f"{RECORD} is not as it was written")) from error
    return record


def check_model(folder: Path, record: ModelRecord) -> None:
    """Compare every file of a model with its hash.

    Raises:
        DamagedError: one is missing or is not as it was written.
        StorageError: one cannot be read.
    """
    for name, sha256 in record.sha256.items():
        try:
            is_same = _sha256(folder / name) == sha256
        except FileNotFoundError as error:
            raise DamagedError(_damaged(folder, f"{name} is missing")) from error
        except OSError as error:
            raise StorageError(f"cannot read {folder / name}: {error.strerror}") from error
        if not is_same:
            raise DamagedError(_damaged(folder, f"{name} is not as it was written"))


def _damaged(folder: Path, what: str) -> str:
    return (
        f"the model {folder} is damaged: {what}; remove it and its cell, "
        f"{folder.parent.parent / 'cells' / folder.name}.safetensors, and start the same toxbench "
        "run again, which trains this cell anew"
    )


def _candidate(key: CellKey) -> tuple[str, str]:
    return key.candidate, key.digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
