"""Calibration of probabilities, and choice of thresholds. All use only validation rows."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.definitions import ACCURACY, GLOBAL, HALF, PER_LABEL
from toxbench.records import Calibration
from toxbench.util.arrays import Floats, Predictions, Probabilities, Targets

_MARGIN = 1e-7  # probabilities of 0 and 1 have no finite logit
_MOST_STEPS, _TOLERANCE = 100, 1e-10
POSITIVES_NEEDED = 10  # for a label's own threshold
_ROUNDING = 1e-12
_ROWS_FOR_HALF = 40  # weight of 0.5 in the accuracy threshold, as a number of validation rows


def fit_calibration(targets: Targets, probabilities: Probabilities) -> Calibration:
    """Fit the calibration of validation rows: Platt scaling (1999), all labels pooled.

    The fit minimizes the mean negative log-likelihood of all entries, plus
    ``(log(temperature)^2 + shift^2) / (2 rows)``: the mode under standard normal priors if each
    row counts as one observation, because the labels of a row are not independent. A temperature
    alone (Guo et al. 2017, arXiv:1706.04599) cannot correct probabilities that are all too high,
    such as those of a weighted loss. The time is linear.

    Args:
        targets: 0/1 of the validation rows, ``[row, label]``.
        probabilities: of the same rows, ``[row, label]``.

    Returns:
        temperature 1 and shift 0 if no target is 1.
    """
    if not targets.any():
        return Calibration()
    logits, positive = logit(probabilities).ravel(), targets.ravel().astype(np.float64)
    prior = 1 / len(targets)

    def loss(values: Floats) -> float:
        scaled = np.exp(values[0]) * logits + values[1]
        likelihood = np.mean(np.logaddexp(0, scaled) - positive * scaled)
        return float(likelihood + prior * (values @ values) / 2)

    values = np.zeros(2)  # log(1 / temperature), shift
    for _ in range(_MOST_STEPS):
        step = _fisher_step(values, logits, positive, prior)
        current = loss(values)
        while loss(values + step) > current and np.abs(step).max() > _TOLERANCE:
            step /= 2
        values = values + step
        if np.abs(step).max() <= _TOLERANCE:
            break
    return Calibration(temperature=float(np.exp(-values[0])), shift=float(values[1]))


def calibrate(probabilities: Probabilities, calibration: Calibration) -> Floats:
    """Return ``sigmoid(logit(p) / temperature + shift)``, of the same shape; it is increasing."""
    return sigmoid(logit(probabilities) / calibration.temperature + calibration.shift)


def uncalibrate(probabilities: Probabilities, calibration: Calibration) -> Floats:
    """Return the inverse of `calibrate`."""
    return sigmoid((logit(probabilities) - calibration.shift) * calibration.temperature)


def logit(probabilities: Probabilities) -> Floats:
    """Return ``log(p / (1 - p))``; 0 and 1 are replaced by the nearest usable values."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), _MARGIN, 1 - _MARGIN)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(logits: Floats) -> Floats:
    """Return ``1 / (1 + exp(-z))``."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(logits))))


def _fisher_step(values: Floats, logits: Floats, positive: Floats, prior: float) -> Floats:
    """Return the step of Fisher scoring from ``values``, which are log(1 / temperature), shift."""
    scaled = np.exp(values[0]) * logits
    predicted = sigmoid(scaled + values[1])
    jacobian = np.stack([scaled, np.ones_like(scaled)])  # of the calibrated logits, [value, entry]
    gradient = jacobian @ (predicted - positive) / len(logits) + prior * values
    weights = predicted * (1 - predicted)
    information = (jacobian * weights) @ jacobian.T / len(logits) + prior * np.eye(2)
    return np.asarray(-np.linalg.solve(information, gradient))


def predict(probabilities: Probabilities, thresholds: Sequence[float]) -> Predictions:
    """Return 0/1 predictions ``[row, label]``: 1 if the probability is above the threshold.

    Args:
        probabilities: in [0, 1], ``[row, label]``; leading axes are allowed.
        thresholds: one for each label.
    """
    return (probabilities > np.asarray(thresholds)).astype(np.uint8)


def choose_thresholds(
    targets: Targets, probabilities: Probabilities
) -> dict[str, tuple[float, ...]]:
    """Choose each rule's thresholds on validation rows, for probabilities without calibration.

    ``global`` is `f1_threshold`. ``accuracy`` is the mean of `best_accuracy_threshold`, weighted by
    the number of rows, and 0.5, with the weight of 40 rows. ``per-label`` is `best_threshold` of
    each label with at least ten positive rows, and the global threshold for the other labels.

    Args:
        targets: 0/1 of the validation rows, ``[row, label]``; if none is 1, the only rule is 0.5.
        probabilities: of the same rows, ``[row, label]``.

    Returns:
        rule -> one threshold for each label.
    """
    label_count = targets.shape[1]
    rules: dict[str, tuple[float, ...]] = {HALF: (0.5,) * label_count}
    if not targets.any():
        return rules
    shared = f1_threshold(probabilities, fit_calibration(targets, probabilities))
    rules[GLOBAL] = (shared,) * label_count
    best = best_accuracy_threshold(targets, probabilities)
    rows = len(targets)
    accurate = (rows * best + _ROWS_FOR_HALF * 0.5) / (rows + _ROWS_FOR_HALF)
    rules[ACCURACY] = (accurate,) * label_count
    rules[PER_LABEL] = tuple(
        best_threshold(targets[:, i], probabilities[:, i])
        if int(targets[:, i].sum()) >= POSITIVES_NEEDED
        else shared
        for i in range(label_count)
    )
    return rules


def f1_threshold(probabilities: Probabilities, calibration: Calibration) -> float:
    """Return the threshold of half the highest expected F1, for uncalibrated probabilities.

    The threshold with the highest F1 on calibrated probabilities is half of that F1 (Lipton et al.
    2014, arXiv:1402.1892). Predicting the k most probable of n entries has the expected F1
    ``2 (q_1 + ... + q_k) / (k + q_1 + ... + q_n)``, a ratio of expectations, with calibrated
    probabilities q in descending order. No target is needed, so there is little to overfit. The
    time is linear after one sort.

    Args:
        probabilities: not calibrated, of any shape; all entries have equal weight.
        calibration: of these probabilities.
    """
    values = -np.sort(-calibrate(probabilities, calibration).ravel())
    sums = np.cumsum(values)
    expected_f1 = 2 * sums / (np.arange(1, len(values) + 1) + sums[-1])
    return float(uncalibrate(expected_f1.max() / 2, calibration))


def recall_threshold(
    targets: Targets, probabilities: Probabilities, recall: float, confidence: float
) -> float:
    """Return the highest threshold of one label that has a recall with a confidence.

    Learn then test (Angelopoulos et al. 2021, arXiv:2110.01052): thresholds are tested in
    ascending order until one is not significant, each by an exact binomial test of the hypothesis
    that its recall on new rows is lower. The threshold is too high in at most the share
    ``1 - confidence`` of samples of independent rows.

    Args:
        targets: 0/1, ``[row]``, of which at least `positives_for_recall` are 1.
        probabilities: ``[row]``.
        recall: to reach, in (0, 1).
        confidence: in (0, 1).
    """
    from scipy.stats import binom  # lazy: the import takes a second

    positives = -np.sort(-probabilities[targets == 1].astype(np.float64))
    hits = np.arange(1, len(positives) + 1)
    is_significant = binom.sf(hits - 1, len(positives), recall) <= 1 - confidence + _ROUNDING
    lowest = positives[is_significant.argmax()]
    below = probabilities[probabilities < lowest].astype(np.float64)
    # A threshold of 0 would exclude a probability of 0.
    return float(_midpoints(below.max(initial=0.0 if lowest > 0 else -1.0), lowest))


def positives_for_recall(recall: float, confidence: float) -> int:
    """Return the smallest number of positive rows with a threshold: all of them must be hits."""
    return math.ceil(math.log(1 - confidence + _ROUNDING) / math.log(recall))


def best_accuracy_threshold(targets: Targets, probabilities: Probabilities) -> float:
    """Return the shared threshold with the highest subset accuracy; if several, nearest to 0.5.

    A row is correct between its most probable negative and its least probable positive label. The
    candidates are 1 and the midpoints between neighbouring values of these two kinds. The time is
    linear after sorting.

    Args:
        targets: 0/1, ``[row, label]``.
        probabilities: ``[row, label]``.
    """
    values = probabilities.astype(np.float64)
    low = np.where(targets == 0, values, 0).max(axis=1)
    high = np.where(targets == 1, values, 2).min(axis=1)  # no threshold is too high for some rows
    low, high = np.sort(low[low < high]), np.sort(high[low < high])
    limits = np.unique(np.concatenate([[0.0, 1.0], low, high]))
    limits = limits[limits <= 1]
    candidates = np.append(_midpoints(limits[:-1], limits[1:]), 1.0)
    correct = np.searchsorted(low, candidates, "right") - np.searchsorted(high, candidates, "right")
    return _nearest_to_half(candidates[correct == correct.max()])


def best_threshold(targets: npt.NDArray[np.uint8], probabilities: Probabilities) -> float:
    """Return the threshold with the highest F1; among equals, the one nearest to 0.5.

    The candidates are the midpoints between neighbouring distinct probabilities, so predictions
    do not depend on rounding errors. The time is linear after one sort.

    Args:
        targets: 0/1, ``[entry]``, at least one of them 1.
        probabilities: ``[entry]``.
    """
    order = np.argsort(-probabilities, kind="stable")
    values = probabilities[order].astype(np.float64)
    hits = np.cumsum(targets[order], dtype=np.int64)
    # Cutting after entry k (0-based) predicts k + 1: F1 = 2 hits / (predicted + positives).
    f1 = 2 * hits / (np.arange(1, len(values) + 1) + hits[-1])
    following = np.append(values[1:], 0.0)
    f1[values == following] = -1  # no threshold lies between equal probabilities
    return _nearest_to_half(_midpoints(following, values)[f1 == f1.max()])


def _midpoints(low: Floats, high: Floats) -> Floats:
    midpoints = (low + high) / 2
    # Adjacent doubles have no midpoint between them.
    return np.where(midpoints < high, midpoints, low)


def _nearest_to_half(thresholds: Floats) -> float:
    return float(thresholds[np.argmin(np.abs(thresholds - 0.5))])
