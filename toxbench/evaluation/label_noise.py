"""Upper bounds of the scores on a table in which copies of a text have different labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.util.arrays import UNLABELLED, Codes, Targets


@dataclass(frozen=True)
class ScoreBounds:
    """The highest scores of a model that gives all copies of a text the same labels.

    Attributes:
        rows: number of rows over which the scores are taken.
        micro_f1: 0 if no row is positive.
        subset_accuracy: share of rows.
    """

    rows: int
    micro_f1: float
    subset_accuracy: float


def label_noise(
    codes: Codes, texts: npt.NDArray[np.int64]
) -> tuple[ScoreBounds, ScoreBounds] | None:
    """Return the bounds over all rows, and over the rows that have a copy.

    Rows that are not completely labelled are left out.

    Args:
        codes: ``[row, label]``.
        texts: number of each row's text, ``[row]``; equal for copies.

    Returns:
        None if no row has a copy.
    """
    is_complete = (codes != UNLABELLED).all(axis=1)
    targets, texts = codes[is_complete], texts[is_complete]
    is_copied = np.bincount(texts)[texts] > 1
    if not is_copied.any():
        return None
    return score_bounds(targets, texts), score_bounds(targets[is_copied], texts[is_copied])


def score_bounds(targets: Targets, texts: npt.NDArray[np.int64]) -> ScoreBounds:
    """Return the highest scores of predictions that depend on the text alone.

    Subset accuracy is highest if each text gets the most frequent label set of its rows. The
    micro-F1 F is highest if a text gets each label whose share of positive rows exceeds F / 2
    (Lipton et al. 2014, arXiv:1402.1892); F is the fixed point of this rule, which is reached from
    below.

    ``targets`` are 0/1, ``[row, label]``; ``texts`` as in `label_noise`.
    """
    order = np.argsort(texts, kind="stable")
    starts = np.flatnonzero(np.diff(texts[order], prepend=-1))
    rows = np.diff(starts, append=len(order))[:, None]
    positives = np.add.reduceat(targets[order].astype(np.int64), starts)  # [text, label]
    sets, counts = np.unique(np.column_stack([texts, targets]), axis=0, return_counts=True)
    most_frequent = np.maximum.reduceat(counts, np.flatnonzero(np.diff(sets[:, 0], prepend=-1)))
    f1, previous = 0.0, -1.0
    while f1 > previous:
        is_predicted = positives > f1 / 2 * rows
        predicted = (is_predicted * rows).sum()
        correct = positives[is_predicted].sum()
        previous, f1 = f1, 2 * correct / max(1, predicted + positives.sum())
    return ScoreBounds(len(targets), float(f1), float(most_frequent.sum() / len(targets)))
