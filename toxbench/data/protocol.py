"""The parts of a table, and the fingerprint of table and split."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from toxbench.data.table import TextDataset
from toxbench.records import PARTS, Part
from toxbench.util.arrays import Rows
from toxbench.util.content import update_with_texts


@dataclass(frozen=True, eq=False)
class Split:
    """Row indices of one fold; no row is in two parts. ``validation`` may be empty."""

    train: Rows
    validation: Rows
    test: Rows

    def part(self, name: Part) -> Rows:
        """Return the row indices of one part."""
        rows: Rows = getattr(self, name)
        return rows


@dataclass(frozen=True, eq=False)
class Protocol:
    """A table and its split: cells of the same protocol can be compared.

    Attributes:
        comments: the validated table.
        folds: one or several splits of its rows.
    """

    comments: TextDataset
    folds: tuple[Split, ...]

    @cached_property
    def data_fingerprint(self) -> str:
        """Sha256 over ids, texts, label names and targets: the table alone."""
        digest = hashlib.sha256()
        _update(digest, "ids", self.comments.ids)
        _update(digest, "texts", self.comments.texts)
        _update(digest, "labels", self.comments.labels)
        digest.update(np.ascontiguousarray(self.comments.codes, dtype=np.uint8).tobytes())
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over the table and every fold's row indices: 64 hex digits.

        Lengths come before contents and integers are little-endian, so that the same table gives
        the same fingerprint on any machine, from any file format.
        """
        folds = ([fold.part(part) for part in PARTS] for fold in self.folds)
        return fingerprint(self.data_fingerprint, folds)


def fingerprint(data: str, folds: Iterable[Iterable[npt.ArrayLike]]) -> str:
    """Return the fingerprint of a protocol.

    Args:
        data: fingerprint of the table.
        folds: row indices of each part of each fold, in the order of `PARTS`.
    """
    digest = hashlib.sha256(data.encode("ascii"))
    for parts in folds:
        for part in parts:
            rows = np.asarray(part, dtype="<i8")
            digest.update(len(rows).to_bytes(8, "little") + rows.tobytes())
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", name: str, values: Sequence[str]) -> None:
    digest.update(f"{name}:{len(values)}:".encode("ascii"))
    update_with_texts(digest, values)
