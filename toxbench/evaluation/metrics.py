"""The shared multi-label metrics. All values come from scikit-learn; the rules are in one place.

Zero support: a label that has no positive among the scored rows is left out of macro averages,
macro average precision and macro ROC AUC, and the number of labels that were scored is a metric of
its own. A division by zero (nothing predicted, say) scores 0. What is undefined is None.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from toxbench.data.table import Targets
from toxbench.records import LabelScores, Scores

Probabilities = npt.NDArray[np.floating]
Predictions = npt.NDArray[np.uint8]

# Name -> definition. Part of the protocol's fingerprint: change a definition, and old cells are
# no longer compared with new ones.
DEFINITIONS: Mapping[str, str] = {
    "micro_f1": "F1 over all (row, label) entries together",
    "micro_precision": "precision over all entries together",
    "micro_recall": "recall over all entries together",
    "macro_f1": "mean of the labels' F1, over labels with a positive row",
    "macro_precision": "mean of the labels' precision, over labels with a positive row",
    "macro_recall": "mean of the labels' recall, over labels with a positive row",
    "weighted_f1": "mean of the labels' F1, weighted by support",
    "weighted_precision": "mean of the labels' precision, weighted by support",
    "weighted_recall": "mean of the labels' recall, weighted by support",
    "samples_f1": "mean of the rows' F1; a row without label and prediction scores 0",
    "samples_precision": "mean of the rows' precision; a row without prediction scores 0",
    "samples_recall": "mean of the rows' recall; a row without label scores 0",
    "subset_accuracy": "share of rows with every label right",
    "hamming_loss": "share of wrong entries",
    "micro_average_precision": "average precision over all entries together",
    "macro_average_precision": "mean of the labels' average precision, where a positive exists",
    "micro_roc_auc": "ROC AUC over all entries together",
    "macro_roc_auc": "mean of the labels' ROC AUC, where a positive and a negative exist",
    "scored_labels": "labels with a positive row, which macro averages are over",
}
_AVERAGES = ("micro", "macro", "weighted", "samples")


def evaluate(
    targets: Targets, probabilities: Probabilities, thresholds: Sequence[float]
) -> dict[str, float | None]:
    """Compute every metric of `DEFINITIONS`.

    Args:
        targets: 0/1, ``[row, label]``, at least one row.
        probabilities: in [0, 1], ``[row, label]``.
        thresholds: one for each label; a probability above it is a positive prediction.

    Returns:
        metric name -> value, None where it is undefined.
    """
    predictions = predict(probabilities, thresholds)
    scored = targets.any(axis=0)
    scores: Scores = {}
    for average in _AVERAGES:
        columns = scored if average == "macro" else np.ones_like(scored)
        scores |= _averaged(targets[:, columns], predictions[:, columns], average)
    scores["subset_accuracy"] = float(accuracy_score(targets, predictions))
    scores["hamming_loss"] = float(hamming_loss(targets, predictions))
    scores |= _ranking(targets, probabilities)
    scores["scored_labels"] = float(scored.sum())
    return {name: scores[name] for name in DEFINITIONS}


def predict(probabilities: Probabilities, thresholds: Sequence[float]) -> Predictions:
    """Return 0/1 predictions ``[row, label]``: 1 where the probability is above the threshold."""
    return (probabilities > np.asarray(thresholds)).astype(np.uint8)


def label_table(
    labels: Sequence[str],
    targets: Targets,
    probabilities: Probabilities,
    thresholds: Sequence[float],
) -> tuple[LabelScores, ...]:
    """Score each label by itself, with its support; arguments as in `evaluate`."""
    predictions = predict(probabilities, thresholds)
    precision, recall, f1, _ = precision_recall_fscore_support(
        _at_least_two(targets), _at_least_two(predictions), average=None, zero_division=0
    )
    return tuple(
        LabelScores(
            label=label,
            support=int(targets[:, i].sum()),
            threshold=float(thresholds[i]),
            precision=float(precision[i]),
            recall=float(recall[i]),
            f1=float(f1[i]),
            average_precision=average_precision(targets[:, i], probabilities[:, i]),
            roc_auc=_roc_auc(targets[:, i], probabilities[:, i]),
        )
        for i, label in enumerate(labels)
    )


def is_constant(predictions: Predictions) -> bool:
    """Whether every row gets the same prediction."""
    return bool((predictions == predictions[:1]).all())


def _averaged(targets: Targets, predictions: Predictions, average: str) -> Scores:
    names = [f"{average}_{name}" for name in ("precision", "recall", "f1")]
    if targets.shape[1] == 0:
        return dict.fromkeys(names, None)
    values = precision_recall_fscore_support(
        _at_least_two(targets), _at_least_two(predictions), average=average, zero_division=0
    )
    return {name: float(value) for name, value in zip(names, values[:3], strict=True)}


def _at_least_two(columns: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Double a single column: scikit-learn takes one for a binary problem with two classes.

    Every average of two equal columns is the average of one.
    """
    return np.repeat(columns, 2, axis=1) if columns.shape[1] == 1 else columns


def _ranking(targets: Targets, probabilities: Probabilities) -> Scores:
    columns = range(targets.shape[1])
    precisions = [average_precision(targets[:, i], probabilities[:, i]) for i in columns]
    areas = [_roc_auc(targets[:, i], probabilities[:, i]) for i in columns]
    return {
        "micro_average_precision": average_precision(targets, probabilities),
        "macro_average_precision": _mean(precisions),
        "micro_roc_auc": _roc_auc(targets.ravel(), probabilities.ravel()),
        "macro_roc_auc": _mean(areas),
    }


def headline(targets: Targets, probabilities: Probabilities) -> float:
    """Mean of micro-F1 and subset accuracy at threshold 0.5; arguments as in `evaluate`."""
    predictions = predict(probabilities, [0.5] * targets.shape[1])
    f1 = f1_score(targets.ravel(), predictions.ravel(), zero_division=0)
    return float(f1 + accuracy_score(targets, predictions)) / 2


def average_precision(targets: Targets, probabilities: Probabilities) -> float | None:
    """Average precision over all entries; None where there is no positive."""
    targets, probabilities = targets.ravel(), probabilities.ravel()
    if not targets.any():
        return None
    return float(average_precision_score(targets, probabilities))


def _roc_auc(targets: Targets, probabilities: Probabilities) -> float | None:
    if not targets.any() or targets.all():
        return None
    return float(roc_auc_score(targets, probabilities))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
