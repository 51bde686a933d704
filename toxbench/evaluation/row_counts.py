"""Scores as ratios of sums over rows, so that rows can be weighted and resampled cheaply."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from toxbench.util.arrays import Counts, Floats, Predictions, Targets

# "one" is 1 for every row: its sum is the number of rows.
COUNTS = ("true_positives", "false_positives", "false_negatives", "exact", "one")


def row_counts(targets: Targets, predictions: Predictions) -> Counts:
    """Count the entries of each row: hits, errors, and whether all labels match.

    Args:
        targets: 0/1, ``[row, label]``.
        predictions: 0/1, ``[row, label]``.

    Returns:
        float32 ``[row, 5]``: see `COUNTS`.
    """
    counts = np.empty((len(targets), len(COUNTS)), dtype=np.float32)
    hits, predicted, positive = map(_sum_rows, (targets & predictions, predictions, targets))
    counts[:, 0] = hits
    counts[:, 1] = predicted - hits
    counts[:, 2] = positive - hits
    counts[:, 3] = (predicted == hits) & (positive == hits)
    counts[:, 4] = 1
    return counts


def _sum_rows(entries: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Sum 0/1 ``[row, label]`` to ``[row]``; for few labels a product is faster than ``sum``."""
    return entries.astype(np.float32) @ np.ones(entries.shape[1], dtype=np.float32)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; a division by zero gives 0, as in scikit-learn."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


# Metric -> function from float64 sums over rows, [..., count], to scores, [...].
SCORES: Mapping[str, Callable[[Floats], Floats]] = {
    "micro_f1": lambda s: _ratio(2 * s[..., 0], 2 * s[..., 0] + s[..., 1] + s[..., 2]),
    "subset_accuracy": lambda s: _ratio(s[..., 3], s[..., 4]),
    "micro_precision": lambda s: _ratio(s[..., 0], s[..., 0] + s[..., 1]),
    "micro_recall": lambda s: _ratio(s[..., 0], s[..., 0] + s[..., 2]),
}
