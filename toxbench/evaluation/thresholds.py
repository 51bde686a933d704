"""The rules that choose thresholds. All use only validation rows, never test rows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.definitions import GLOBAL, HALF, PER_LABEL
from toxbench.util.arrays import Predictions, Probabilities, Targets

POSITIVES_NEEDED = 10  # for a label's own threshold


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
    """Choose each rule's thresholds on validation rows.

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
    shared = best_threshold(targets.ravel(), probabilities.ravel())
    rules[GLOBAL] = (shared,) * label_count
    rules[PER_LABEL] = tuple(
        best_threshold(targets[:, i], probabilities[:, i])
        if int(targets[:, i].sum()) >= POSITIVES_NEEDED
        else shared
        for i in range(label_count)
    )
    return rules


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
    midpoints = (values + following) / 2
    # Adjacent doubles have no midpoint between them.
    midpoints = np.where(midpoints < values, midpoints, following)
    best = np.flatnonzero(f1 == f1.max())
    return float(midpoints[best[np.argmin(np.abs(midpoints[best] - 0.5))]])
