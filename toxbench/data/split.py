"""Which rows are for what, and the fingerprint of everything that defines the yardstick."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from toxbench.data.table import Comments
from toxbench.errors import DataError
from toxbench.records import PARTS, Part
from toxbench.settings import SplitSettings

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row indices of one fold; every row is in exactly one part. ``validation`` may be empty."""

    train: Rows
    validation: Rows
    test: Rows

    def part(self, name: Part) -> Rows:
        """Return the row indices of one part."""
        rows: Mapping[Part, Rows] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return rows[name]


@dataclass(frozen=True, eq=False)
class Protocol:
    """Everything that defines the yardstick: table, folds, and how scores are computed.

    Attributes:
        comments: the validated table.
        folds: one or several splits of its rows.
        definitions: name -> definition of each metric and thresholds rule, in words and numbers.
    """

    comments: Comments
    folds: tuple[Split, ...]
    definitions: Mapping[str, str]

    @cached_property
    def data_fingerprint(self) -> str:
        """Sha256 over ids, texts, label names and targets: the table alone."""
        digest = hashlib.sha256()
        _update(digest, "ids", self.comments.ids)
        _update(digest, "texts", self.comments.texts)
        _update(digest, "labels", self.comments.labels)
        digest.update(np.ascontiguousarray(self.comments.targets, dtype=np.uint8).tobytes())
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over the table, every fold's indices and the definitions: 64 hex digits.

        Lengths come before contents and integers are little-endian, so that the same table gives
        the same fingerprint on any machine, from any file format.
        """
        digest = hashlib.sha256(self.data_fingerprint.encode("ascii"))
        for fold in self.folds:
            for part in PARTS:
                rows = fold.part(part).astype("<i8")
                digest.update(len(rows).to_bytes(8, "little") + rows.tobytes())
        _update(digest, "definitions", [f"{k}={v}" for k, v in sorted(self.definitions.items())])
        return digest.hexdigest()


def default_split(row_count: int, settings: SplitSettings | None = None) -> Split:
    """Split as the original study did: scikit-learn's ``train_test_split`` over row numbers.

    Validation rows come out of the train rows by the same function, so the test rows do not
    depend on how many are held out for validation.

    Raises:
        DataError: a part that must have rows would have none.
    """
    settings = settings or SplitSettings()
    try:
        train, test = train_test_split(
            np.arange(row_count), test_size=settings.test_size, random_state=settings.split_seed
        )
        validation = train[:0]
        if settings.validation_size > 0:
            train, validation = train_test_split(
                train, test_size=settings.validation_size, random_state=settings.split_seed
            )
    except ValueError as error:
        raise DataError(
            f"{row_count} rows are too few to split (test {settings.test_size:g}, validation "
            f"{settings.validation_size:g} of the rest); bring more rows or change the fractions"
        ) from error
    return Split(*(part.astype(np.int64) for part in (train, validation, test)))


def _update(digest: "hashlib._Hash", name: str, values: Iterable[str]) -> None:
    values = list(values)
    digest.update(f"{name}:{len(values)}:".encode("ascii"))
    for value in values:
        data = value.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little") + data)
