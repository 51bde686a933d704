"""Scores that are ratios of sums over rows, so that any weighting of rows is scored at once."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from toxbench.data.table import Targets
from toxbench.evaluation.predictions import Predictions

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float32]  # [..., row, count] of COUNTS
COUNTS = ("true_positives", "false_positives", "false_negatives", "exact", "one")


def row_counts(targets: Targets, predictions: Predictions) -> Counts:
    """Count each row's entries.

    Args:
        targets: 0/1, ``[row, label]``.
        predictions: 0/1, ``[row, label]``.

    Returns:
        float32 ``[row, 5]``: see `COUNTS`.
    """
    hits = (targets & predictions).sum(axis=1)
    return np.column_stack(
        [
            hits,
            predictions.sum(axis=1) - hits,
            targets.sum(axis=1) - hits,
            (targets == predictions).all(axis=1),
            np.ones(len(targets)),
        ]
    ).astype(np.float32)


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide; where there is nothing to count the score is 0, as in scikit-learn."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _micro_f1(sums: Floats) -> Floats:
    return _ratio(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])


def _micro_precision(sums: Floats) -> Floats:
    return _ratio(sums[..., 0], sums[..., 0] + sums[..., 1])


def _micro_recall(sums: Floats) -> Floats:
    return _ratio(sums[..., 0], sums[..., 0] + sums[..., 2])


def _subset_accuracy(sums: Floats) -> Floats:
    return _ratio(sums[..., 3], sums[..., 4])


# Metric -> its value from float64 sums over rows, [..., count] -> [...].
SCORES: Mapping[str, Callable[[Floats], Floats]] = {
    "micro_f1": _micro_f1,
    "subset_accuracy": _subset_accuracy,
    "micro_precision": _micro_precision,
    "micro_recall": _micro_recall,
}
HEADLINES = ("micro_f1", "subset_accuracy")
