"""When a probability counts as yes. Every rule sees validation rows only, never test rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.definitions import GLOBAL, HALF, PER_LABEL
from toxbench.util.arrays import Predictions, Probabilities, Targets


def predict(probabilities: Probabilities, thresholds: Sequence[float]) -> Predictions:
    """Return 0/1 predictions ``[row, label]``: 1 where the probability is above the threshold."""
    return (probabilities > np.asarray(thresholds)).astype(np.uint8)


POSITIVES_NEEDED = 10

DEFINITIONS: Mapping[str, str] = {
    HALF: "0.5 for every label",
    GLOBAL: "one threshold, of the highest validation micro-F1",
    PER_LABEL: (
        "of the highest validation F1 for a label with at least 10 validation positives; "
        "the global one for the rest"
    ),
}


def choose_thresholds(
    targets: Targets, probabilities: Probabilities
) -> dict[str, tuple[float, ...]]:
    """Choose each rule's thresholds on validation rows.

    Args:
        targets: 0/1 of the validation rows, ``[row, label]``; without rows only 0.5 is there.
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
    """Return the threshold of the highest F1; of equally good ones, the one nearest to 0.5.

    Candidates lie half-way between neighbouring distinct probabilities, so that no prediction
    hangs on a rounding error. Linear after one sort.

    Args:
        targets: 0/1, ``[entry]``, at least one of them 1.
        probabilities: ``[entry]``.
    """
    order = np.argsort(-probabilities, kind="stable")
    values = probabilities[order].astype(np.float64)
    hits = np.cumsum(targets[order], dtype=np.int64)
    # Cutting after entry k (0-based) predicts k + 1: F1 = 2 hits / (predicted + positives).
    f1 = 2 * hits / (np.arange(1, len(values) + 1) + hits[-1])
    below = np.append(values[1:], 0.0)
    f1[values == below] = -1  # no threshold lies between equal probabilities
    between = (values + below) / 2
    between = np.where(between < values, between, below)  # neighbouring doubles have no middle
    best = np.flatnonzero(f1 == f1.max())
    return float(between[best[np.argmin(np.abs(between[best] - 0.5))]])
