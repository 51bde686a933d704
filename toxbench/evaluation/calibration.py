"""Calibration of probabilities by a temperature and a shift, fitted on validation rows."""

import numpy as np

from toxbench.records import Calibration
from toxbench.util.arrays import Floats, Probabilities, Targets

_MARGIN = 1e-7  # probabilities of 0 and 1 have no finite logit
_MOST_STEPS, _TOLERANCE = 100, 1e-10


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
