"""Scores as ratios of sums over rows, so that rows can be weighted and resampled cheaply."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt

from toxbench.util.arrays import (
    UNLABELLED,
    Codes,
    Counts,
    Floats,
    Predictions,
    Probabilities,
    Targets,
    known_targets,
)

# "empty" is 1 for a row without labels, which a constant negative prediction matches; "one" is 1
# for every row: its sum is the number of rows.
COUNTS = ("true_positives", "false_positives", "false_negatives", "exact", "empty", "one")
_STEP = 2.0**-10  # of values: their float32 sums are exact, in any order of the rows
_MIN_PROBABILITY = 0.001  # so that a single entry cannot decide the log likelihood


def row_counts(targets: Targets, predictions: Predictions) -> Counts:
    """Count the entries of each row: hits, errors, and whether all labels match.

    Args:
        targets: 0/1, ``[row, label]``.
        predictions: 0/1, ``[row, label]``.

    Returns:
        float32 ``[row, 6]``: see `COUNTS`.
    """
    counts = np.empty((len(targets), len(COUNTS)), dtype=np.float32)
    hits, predicted, positive = map(_sum_rows, (targets & predictions, predictions, targets))
    counts[:, 0] = hits
    counts[:, 1] = predicted - hits
    counts[:, 2] = positive - hits
    counts[:, 3] = (predicted == hits) & (positive == hits)
    counts[:, 4] = positive == 0
    counts[:, 5] = 1
    return counts


def row_columns(
    codes: Codes, predictions: Predictions, probabilities: Probabilities, names: Collection[str]
) -> Counts:
    """Return the columns of each row that the scores ``names`` need.

    These are the counts and, if a score of `VALUES` is among the names, one value for each of
    `VALUES`, 0 if it is not needed. The mean of the values over the rows is the score. Their mean
    over resampled rows is the score of the resampled rows to first order (the infinitesimal
    jackknife, Efron and Tibshirani 1993, chapter 21), which needs no sort for each resample.

    Args:
        codes: ``[row, label]``.
        predictions: 0/1, ``[row, label]``.
        probabilities: in [0, 1], ``[row, label]``.
        names: of scores.

    Returns:
        float32 ``[row, column]``; values are multiples of 1 / 1,024.
    """
    counts = row_counts(known_targets(codes), predictions)
    if not VALUES.keys() & set(names):
        return counts
    values = np.zeros((len(codes), len(VALUES)))
    for column, (name, compute) in enumerate(VALUES.items()):
        if name in names:
            values[:, column] = compute(codes, predictions, probabilities)
    return np.hstack([counts, np.round(values / _STEP) * _STEP]).astype(np.float32)


def _log_likelihoods(
    codes: Codes, _predictions: Predictions, probabilities: Probabilities
) -> Floats:
    """Return values for the mean log likelihood, with probabilities in [0.001, 0.999]."""
    right, labelled = np.where(codes == 1, probabilities, 1 - probabilities), codes != UNLABELLED
    logs = np.log(right.clip(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY))
    entries_per_row = np.count_nonzero(labelled) / len(codes)
    return np.asarray(logs.sum(axis=1, where=labelled) / (entries_per_row or 1.0))


def _macro_f1_values(
    codes: Codes, predictions: Predictions, _probabilities: Probabilities
) -> Floats:
    """Return values for the mean F1 of the labels with a positive row."""
    targets = known_targets(codes)
    scored = targets.any(axis=0)
    targets, predictions = targets[:, scored], predictions[:, scored]
    if not scored.any():
        return np.zeros(len(targets))
    doubled = 2.0 * (targets & predictions)  # F1 = 2 TP / (2 TP + FP + FN)
    total = targets.astype(np.float64) + predictions
    totals = total.sum(axis=0)
    f1 = doubled.sum(axis=0) / totals
    slopes = (doubled - f1 * total) / totals  # of F1 by the weight of a row, [row, label]
    return np.asarray(f1.mean() + len(targets) * slopes.mean(axis=1))


def _average_precision_values(
    codes: Codes, _predictions: Predictions, probabilities: Probabilities
) -> Floats:
    """Return values for the average precision over all entries; zeros if none is positive.

    With precision p at each positive entry, it is the mean of p. An entry's weight changes its own
    term and the precision at all positive entries that are at most as probable.
    """
    rows, labels = codes.shape
    positive = codes.ravel() == 1
    if not positive.any():
        return np.zeros(rows)
    order = np.argsort(-probabilities.ravel(), kind="stable")
    scores = probabilities.ravel()[order]
    ends = np.searchsorted(-scores, -scores, side="right")  # equal probabilities share a threshold
    sorted_positive = positive[order].astype(np.float64)
    hits = np.cumsum(sorted_positive)[ends - 1]
    precision = hits / ends
    # Sums over the positive entries from each entry's first equal on.
    starts = np.searchsorted(-scores, -scores, side="left")
    gains = np.cumsum((sorted_positive / ends)[::-1])[::-1][starts]
    losses = np.cumsum((sorted_positive * precision / ends)[::-1])[::-1][starts]
    count = sorted_positive.sum()
    score = (sorted_positive * precision).sum() / count
    slopes = np.empty(rows * labels)
    slopes[order] = (sorted_positive * (precision - score + gains) - losses) / count
    return np.asarray(score + rows * slopes.reshape(rows, labels).sum(axis=1))


def _sum_rows(entries: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Sum 0/1 ``[row, label]`` to ``[row]``; for few labels a product is faster than ``sum``."""
    return entries.astype(np.float32) @ np.ones(entries.shape[1], dtype=np.float32)


def divide_or_0(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; a division by zero gives 0, as in scikit-learn."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


# Score -> function from codes, predictions and probabilities to values, [row].
VALUES: Mapping[str, Callable[[Codes, Predictions, Probabilities], Floats]] = {
    "log_likelihood": _log_likelihoods,
    "macro_f1": _macro_f1_values,
    "micro_average_precision": _average_precision_values,
}
# Metric -> function from float64 sums over rows, [..., count], to scores, [...].
SCORES: Mapping[str, Callable[[Floats], Floats]] = {
    "micro_f1": lambda s: divide_or_0(2 * s[..., 0], 2 * s[..., 0] + s[..., 1] + s[..., 2]),
    "subset_accuracy": lambda s: divide_or_0(s[..., 3], s[..., 5]),
    "micro_precision": lambda s: divide_or_0(s[..., 0], s[..., 0] + s[..., 1]),
    "micro_recall": lambda s: divide_or_0(s[..., 0], s[..., 0] + s[..., 2]),
    # Subset accuracy minus that of the constant negative prediction.
    "excess_accuracy": lambda s: divide_or_0(s[..., 3] - s[..., 4], s[..., 5]),
    "log_likelihood": lambda s: divide_or_0(s[..., 6], s[..., 5]),
    "macro_f1": lambda s: divide_or_0(s[..., 7], s[..., 5]),
    "micro_average_precision": lambda s: divide_or_0(s[..., 8], s[..., 5]),
}
