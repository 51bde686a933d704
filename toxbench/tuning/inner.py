"""The rows that a search may see: those of train and validation, without any test row."""

from dataclasses import dataclass

import numpy as np

from toxbench.data.protocol import Protocol, Split
from toxbench.data.splits import draw_folds
from toxbench.data.table import Comments
from toxbench.errors import DataError
from toxbench.settings import INNER_FOLDS, SplitSettings


@dataclass(frozen=True, eq=False)
class InnerData:
    """A table that test rows were never part of, and its folds."""

    comments: Comments
    folds: tuple[Split, ...]

    @property
    def fingerprint(self) -> str:
        """Sha256 of these rows and folds: test rows, and their labels, do not change it."""
        return Protocol(self.comments, self.folds, {}).fingerprint


def inner_data(protocol: Protocol, split: SplitSettings, seed: int) -> InnerData:
    """Copy the rows that are not test rows, and cut them into `INNER_FOLDS` folds.

    Each fold's ``validation`` is one of the parts, its ``train`` the others, its ``test`` empty;
    rows are counted in the new table. They are drawn as the protocol's own folds are: what must
    not be torn apart there is not torn apart here.

    Raises:
        DataError: too few rows, or a fold without a positive validation entry.
    """
    outer = protocol.folds[0]
    rows = np.sort(np.concatenate([outer.train, outer.validation]))
    comments = protocol.comments.take(rows)
    if len(rows) < 2 * INNER_FOLDS:
        raise DataError(
            f"{len(rows)} rows beside the test rows are too few to tune on; bring more rows"
        )
    inner = SplitSettings(
        split=split.split, folds=INNER_FOLDS, validation_size=0.0, split_seed=seed
    )
    drawn = draw_folds(comments, inner)
    folds = tuple(Split(fold.train, fold.test, fold.validation) for fold in drawn)
    if not all(comments.targets[fold.validation].any() for fold in folds):
        raise DataError("too few positive rows to tune on: an inner fold has none to validate with")
    return InnerData(comments, folds)
