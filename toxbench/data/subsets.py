"""Nested subsets of the train rows, for learning curves."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from toxbench.data.groups import row_groups
from toxbench.data.protocol import Split
from toxbench.data.table import TextDataset
from toxbench.settings import SplitSettings
from toxbench.util.arrays import Members, Rows

_ROUNDING = 1e-9  # 0.29 * 100 is less than 29


def train_subsets(
    comments: TextDataset, folds: Sequence[Split], fraction: float, settings: SplitSettings
) -> tuple[Split, ...]:
    """Return folds with a fraction of their train rows, in (0, 1], and the same other rows.

    The rows of a smaller fraction are among those of a larger one. A grouped split keeps or leaves
    out whole groups, at least one is kept. They are drawn at random with the seed of the split,
    but first those with which each label has a positive row.
    """
    is_grouped = settings.split == "grouped"
    groups = row_groups(comments) if is_grouped else np.arange(len(comments))
    subsets = []
    for fold in folds:
        units = np.unique(groups[fold.train], return_inverse=True)[1]  # [row]
        positives = np.zeros((units.max() + 1, len(comments.labels)), dtype=bool)
        np.logical_or.at(positives, units, comments.targets[fold.train] == 1)
        order = _nested_order(positives, settings.split_seed)
        ends = np.cumsum(np.bincount(units)[order])
        most_rows = fraction * len(units) + _ROUNDING
        count = max(1, np.searchsorted(ends, most_rows, side="right"))
        subsets.append(replace(fold, train=fold.train[np.isin(units, order[:count])]))
    return tuple(subsets)


def _nested_order(positives: Members, seed: int) -> Rows:
    """Return a random order of units, ``[unit]``, in which the rarest labels come first.

    ``positives`` is whether a unit has a positive row, ``[unit, label]``.
    """
    order, supports = np.random.default_rng(seed).permutation(len(positives)), positives.sum(axis=0)
    shuffled, first = positives[order], list[int]()
    for label in np.argsort(supports, kind="stable")[np.count_nonzero(supports == 0) :]:
        if not shuffled[first, label].any():
            first.append(int(shuffled[:, label].argmax()))
    return np.concatenate([order[first], np.delete(order, first)])
