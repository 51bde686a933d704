"""Scores that are ratios of sums over rows, so that any weighting of rows is scored at once."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from toxbench.util.arrays import Counts, Floats, Predictions, Targets

COUNTS = ("true_positives", "false_positives", "false_negatives", "exact", "one")


def row_counts(targets: Targets, predictions: Predictions) -> Counts:
    """Count each row's entries.

    Args:
        targets: 0/1, ``[row, label]``.
        predictions: 0/1, ``[row, label]``.

    Returns:
        float32 ``[row, 5]``: see `COUNTS`.
    """
    counts = np.empty((len(targets), len(COUNTS)), dtype=np.float32)
    hits, predicted, positive = map(_of_rows, (targets & predictions, predictions, targets))
    counts[:, 0] = hits
    counts[:, 1] = predicted - hits
    counts[:, 2] = positive - hits
    counts[:, 3] = (predicted == hits) & (positive == hits)
    counts[:, 4] = 1
    return counts


def _of_rows(entries: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Add up 0/1 ``[row, label]`` to ``[row]``; a product is faster than sums of few labels."""
    return entries.astype(np.float32) @ np.ones(entries.shape[1], dtype=np.float32)


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
