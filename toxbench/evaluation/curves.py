"""Statistics for plots: threshold and learning curves, calibration, agreement, Pareto fronts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.thresholds import predict
from toxbench.records import TrialRecord
from toxbench.util.arrays import Codes, Floats, Probabilities, Targets

BINS = 10
_MIN_ERROR = 1e-3  # a score of 1 has no logarithm of its error
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Micro scores at several thresholds, each the same for all labels: arrays ``[threshold]``.

    Precision is 1 if nothing is predicted, so a precision-recall curve ends at (0, 1).
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
        thresholds: in ascending order, ``[threshold]``.
    """
    positive = np.sort(probabilities[targets == 1], axis=None)
    ordered = np.sort(probabilities, axis=None)
    hits = len(positive) - np.searchsorted(positive, thresholds, side="right")
    predicted = len(ordered) - np.searchsorted(ordered, thresholds, side="right")
    precision = np.divide(hits, predicted, out=np.ones(len(hits)), where=predicted > 0)
    recall = hits / max(1, len(positive))
    f1 = 2 * hits / np.maximum(1, predicted + len(positive))
    return ThresholdCurve(thresholds, precision, recall, f1)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A reliability curve: arrays ``[bin]``, without the empty bins.

    Attributes:
        counts: entries in the bin.
        mean_probability: of these entries.
        positive_share: share of these entries that are positive.
    """

    counts: npt.NDArray[np.int64]
    mean_probability: Floats
    positive_share: Floats


def calibration(targets: Targets, probabilities: Probabilities) -> Calibration:
    """Compute a reliability curve over 10 equal-width bins, as `expected_calibration_error` does.

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
class ConfusionCounts:
    """The confusion matrix of one label, mean over seeds."""

    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float


def confusion_counts(codes: Codes, probabilities: Probabilities) -> list[ConfusionCounts]:
    """Return each label's confusion matrix at threshold 0.5.

    Args:
        codes: ``[row, label]``.
        probabilities: ``[seed, row, label]``.
    """
    predicted = predict(probabilities, [0.5] * codes.shape[1]) == 1
    yes, no = codes == 1, codes == 0
    cells = (predicted & yes, predicted & no, ~predicted & yes, ~predicted & no)
    means = [cell.sum(axis=1).mean(axis=0).tolist() for cell in cells]
    return [ConfusionCounts(*counts) for counts in zip(*means, strict=True)]


def agreement(candidates: Mapping[str, Probabilities]) -> Floats:
    """Return the share of rows for which two candidates predict the same labels.

    Args:
        candidates: name -> probabilities, ``[seed, row, label]``; a label is predicted if the mean
            over seeds is above 0.5.

    Returns:
        shares, ``[candidate, candidate]``, in the order of the names.
    """
    labels = [p.mean(axis=0) > 0.5 for p in candidates.values()]
    return np.array([[float((a == b).all(axis=1).mean()) for b in labels] for a in labels])


def extrapolate(train_rows: Sequence[int], scores: Floats, target_rows: int) -> Floats:
    """Return the scores that a power law predicts for ``target_rows``, float64 ``[...]``.

    The error of ``scores``, ``[..., size]``, is fitted by ``b * n ** -c``: a line in the logarithms
    of error and rows, by least squares (Hestness et al. 2017, arXiv:1712.00409, without the error
    that infinitely many rows leave, which a few sizes do not determine).
    """
    x, y = np.log(train_rows), np.log(np.maximum(1 - scores, _MIN_ERROR))
    slopes = y @ (x - x.mean()) / np.square(x - x.mean()).sum()
    errors = np.exp(y.mean(axis=-1) + slopes * (np.log(target_rows) - x.mean()))
    return np.asarray((1 - errors).clip(0, 1))


def pareto_front(items: Sequence[Item], losses: Callable[[Item], Sequence[float]]) -> list[Item]:
    """Return the items that no other item dominates, in their order.

    An item dominates another one if none of its losses is higher and one is lower (Deb 2001,
    Multi-Objective Optimization using Evolutionary Algorithms, section 2.4).
    """
    points = [tuple(losses(item)) for item in items]
    pairs = zip(items, points, strict=True)
    return [item for item, point in pairs if not _is_dominated(point, points)]


def trial_front(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials on the Pareto front of the objectives of their search."""
    complete = [record for record in records if record.value is not None]
    return pareto_front(complete, lambda record: (-(record.value or 0.0), *record.costs.values()))


def _is_dominated(point: tuple[float, ...], points: Sequence[tuple[float, ...]]) -> bool:
    return any(
        other != point and all(a <= b for a, b in zip(other, point, strict=True))
        for other in points
    )
