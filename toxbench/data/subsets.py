"""Nested subsets of the train rows, for learning curves."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from toxbench.data.groups import row_groups
from toxbench.data.protocol import Split
from toxbench.data.table import TextDataset
from toxbench.settings import SplitSettings
from toxbench.util.arrays import Rows, Targets

_ROUNDING = 1e-9  # 0.29 * 100 is less than 29


def train_subsets(
    comments: TextDataset, folds: Sequence[Split], fraction: float, settings: SplitSettings
) -> tuple[Split, ...]:
    """Return folds with a fraction of their train rows, and the same validation and test rows.

    A smaller fraction gives a subset of the rows of a larger one, and 1 gives the same folds. A
    grouped split keeps or leaves out whole groups. The first rows or groups are such that each
    label has a positive row, if there are enough of them; the others are drawn at random.

    Args:
        comments: the table.
        folds: of its rows.
        fraction: of the train rows, in (0, 1].
        settings: of the split: ``split_seed`` is the seed of the order.
    """
    is_grouped = settings.split == "grouped"
    groups = row_groups(comments) if is_grouped else np.arange(len(comments))
    return tuple(
        replace(fold, train=_take(fold.train, groups, comments.targets, fraction, seed))
        for seed, fold in enumerate(folds, settings.split_seed)
    )


def _take(rows: Rows, groups: Rows, targets: Targets, fraction: float, seed: int) -> Rows:
    """Return the rows of the first units, at least of one, in their order among all rows."""
    units = np.unique(groups[rows], return_inverse=True)[1]  # [row]
    sizes = np.bincount(units)
    positives = np.zeros((len(sizes), targets.shape[1]), dtype=bool)
    np.logical_or.at(positives, units, targets[rows] == 1)
    order = _nested_order(positives, np.random.default_rng(seed))
    ends = np.cumsum(sizes[order])
    count = np.searchsorted(ends, fraction * len(rows) + _ROUNDING, side="right")
    return rows[np.isin(units, order[: max(1, count)])]


def _nested_order(positives: npt.NDArray[np.bool_], rng: np.random.Generator) -> Rows:
    """Return a random order of the units in which a positive one of each label comes first.

    Args:
        positives: whether a unit has a positive row, ``[unit, label]``.
        rng: draws the order.
    """
    order = rng.permutation(len(positives))
    shuffled, first = positives[order], list[int]()
    supports = positives.sum(axis=0)
    for label in np.argsort(supports, kind="stable")[np.count_nonzero(supports == 0) :]:
        if not shuffled[first, label].any():
            first.append(int(shuffled[:, label].argmax()))
    return np.concatenate([order[first], np.delete(order, first)]).astype(np.int64)
