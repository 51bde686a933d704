"""What pictures show of probabilities: curves over thresholds, calibration, agreement."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.thresholds import predict
from toxbench.util.arrays import Probabilities, Targets

Floats = npt.NDArray[np.float64]
BINS = 10


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Micro scores at each of some thresholds, the same for every label: arrays ``[threshold]``.

    Where nothing is predicted, precision is 1, so that a precision-recall curve ends at (0, 1).
    """

    thresholds: Floats
    precision: Floats
    recall: Floats
    f1: Floats


def threshold_curve(
    targets: Targets, probabilities: Probabilities, thresholds: Floats
) -> ThresholdCurve:
    """Score every threshold; a probability above it is a positive prediction.

    Args:
        targets: 0/1, of any shape; every entry counts alike.
        probabilities: in [0, 1], of the same shape.
        thresholds: rising, ``[threshold]``.
    """
    positive = np.sort(probabilities[targets == 1], axis=None)
    everything = np.sort(probabilities, axis=None)
    hits = len(positive) - np.searchsorted(positive, thresholds, side="right")
    predicted = len(everything) - np.searchsorted(everything, thresholds, side="right")
    precision = np.divide(hits, predicted, out=np.ones(len(hits)), where=predicted > 0)
    recall = hits / max(1, len(positive))
    f1 = 2 * hits / np.maximum(1, predicted + len(positive))
    return ThresholdCurve(thresholds, precision, recall, f1)


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often entries of like probability are positive: arrays ``[bin]``, empty bins left out."""

    counts: npt.NDArray[np.int64]
    mean_probability: Floats
    positive_share: Floats


def calibration(targets: Targets, probabilities: Probabilities) -> Calibration:
    """Put entries into ten bins of equal width, as `expected_calibration_error` does.

    Args:
        targets: 0/1, of any shape; every entry counts alike.
        probabilities: in [0, 1], of the same shape.
    """
    values = probabilities.ravel().astype(np.float64)
    bins = np.digitize(values, np.arange(1, BINS) / BINS)
    counts = np.bincount(bins, minlength=BINS)
    filled = counts > 0
    sums = np.bincount(bins, weights=values, minlength=BINS)
    hits = np.bincount(bins, weights=targets.ravel().astype(np.float64), minlength=BINS)
    return Calibration(counts[filled], sums[filled] / counts[filled], hits[filled] / counts[filled])


@dataclass(frozen=True)
class Confusion:
    """How one label's test rows were predicted, mean over seeds."""

    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float


def confusions(targets: Targets, probabilities: Probabilities) -> list[Confusion]:
    """Count each label's mistakes at threshold 0.5.

    Args:
        targets: 0/1, ``[row, label]``.
        probabilities: ``[seed, row, label]``.
    """
    said = predict(probabilities, [0.5] * targets.shape[1]) == 1
    given = targets == 1
    parts = (said & given, said & ~given, ~said & given, ~said & ~given)
    means = [part.sum(axis=1).mean(axis=0).tolist() for part in parts]
    return [Confusion(*counts) for counts in zip(*means, strict=True)]


def agreement(candidates: Mapping[str, Probabilities]) -> Floats:
    """Return the share of rows for which two candidates predict the same labels.

    Args:
        candidates: name -> ``[seed, row, label]``; seeds decide by their mean probability.

    Returns:
        shares, ``[candidate, candidate]``, in the order of the names.
    """
    said = [p.mean(axis=0) > 0.5 for p in candidates.values()]
    return np.array([[float((a == b).all(axis=1).mean()) for b in said] for a in said])
