"""The shared multi-label metrics: scikit-learn's values, and the rules for them in one place.

Zero support: a label that has no positive among the scored rows is left out of macro averages,
macro average precision and macro ROC AUC, and the number of labels that were scored is a metric of
its own. A division by zero (nothing predicted, say) scores 0. What is undefined is None.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    hamming_loss,
    matthews_corrcoef,
    precision_recall_fscore_support,
    roc_auc_score,
)

from toxbench.evaluation.definitions import METRICS
from toxbench.evaluation.thresholds import predict
from toxbench.records import LabelScores, Part, Scores
from toxbench.util.arrays import Predictions, Probabilities, Targets

# Name -> definition. Part of the protocol's fingerprint: change a definition, and old cells are
# no longer compared with new ones.
DEFINITIONS: Mapping[str, str] = {name: metric.definition for name, metric in METRICS.items()}
CALIBRATION_BINS = 10
_PAIRS_AT_ONCE = 1 << 22  # of labels, while they are ranked
_AVERAGES = ("micro", "macro", "weighted", "samples")


def evaluate(
    targets: Targets, probabilities: Probabilities, thresholds: Sequence[float]
) -> dict[str, float | None]:
    """Compute every metric of `METRICS`.

    Args:
        targets: 0/1, ``[row, label]``, at least one row.
        probabilities: in [0, 1], ``[row, label]``.
        thresholds: one for each label; a probability above it is a positive prediction.

    Returns:
        metric name -> value in the order of `METRICS`, None where it is undefined.
    """
    return _at_thresholds(targets, probabilities, thresholds, _of_any(targets, probabilities))


def _of_any(targets: Targets, probabilities: Probabilities) -> Scores:
    """Compute what is the same whatever the thresholds; it takes most of the time."""
    return {
        "scored_labels": float(targets.any(axis=0).sum()),
        **_ranking(targets, probabilities),
        **_label_ranking(targets, probabilities),
        "brier": brier(targets, probabilities),
        "expected_calibration_error": expected_calibration_error(targets, probabilities),
    }


def _at_thresholds(
    targets: Targets, probabilities: Probabilities, thresholds: Sequence[float], of_any: Scores
) -> Scores:
    """Compute the rest of the metrics and put all of them in order."""
    predictions = predict(probabilities, thresholds)
    scored = targets.any(axis=0)
    scores = dict(of_any)
    for average in _AVERAGES:
        columns = scored if average == "macro" else np.ones_like(scored)
        scores |= _averaged(targets[:, columns], predictions[:, columns], average)
    scores |= _mistakes(targets, predictions)
    scores |= _correlation(targets, predictions)
    return {name: scores[name] for name in METRICS}


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
            prevalence=float(targets[:, i].mean()),
            mcc=_mcc(targets[:, i], predictions[:, i]),
            brier=brier(targets[:, i], probabilities[:, i]),
            expected_calibration_error=expected_calibration_error(
                targets[:, i], probabilities[:, i]
            ),
        )
        for i, label in enumerate(labels)
    )


def measure(
    labels: Sequence[str],
    targets: Mapping[Part, Targets],
    probabilities: Mapping[Part, Probabilities],
    thresholds: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """Return a cell record's ``metrics``, ``per_label`` and ``has_constant_predictions``.

    Args:
        labels: names.
        targets: part -> 0/1, ``[row, label]``.
        probabilities: part -> in [0, 1], ``[row, label]``.
        thresholds: rule -> one for each label; 0.5 is among them.
    """
    pairs = {part: (targets[part], probabilities[part]) for part in targets if len(targets[part])}
    of_any = {part: _of_any(*pair) for part, pair in pairs.items()}
    return {
        "metrics": {
            rule: {
                part: _at_thresholds(*pair, chosen, of_any[part]) for part, pair in pairs.items()
            }
            for rule, chosen in thresholds.items()
        },
        "per_label": {
            rule: label_table(labels, targets["test"], probabilities["test"], chosen)
            for rule, chosen in thresholds.items()
        },
        "has_constant_predictions": is_constant(
            predict(probabilities["test"], [0.5] * len(labels))
        ),
    }


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


def _mistakes(targets: Targets, predictions: Predictions) -> Scores:
    labelled = targets.any(axis=1)
    return {
        "subset_accuracy": _subset_accuracy(targets, predictions),
        "subset_accuracy_empty": _subset_accuracy(targets[~labelled], predictions[~labelled]),
        "subset_accuracy_labelled": _subset_accuracy(targets[labelled], predictions[labelled]),
        "hamming_loss": float(hamming_loss(targets, predictions)),
    }


def _subset_accuracy(targets: Targets, predictions: Predictions) -> float | None:
    return float(accuracy_score(targets, predictions)) if len(targets) else None


def _correlation(targets: Targets, predictions: Predictions) -> Scores:
    scored = np.flatnonzero(targets.any(axis=0))
    return {
        "micro_mcc": _mcc(targets.ravel(), predictions.ravel()),
        "macro_mcc": _mean([_mcc(targets[:, i], predictions[:, i]) for i in scored]),
    }


def _mcc(targets: Targets, predictions: Predictions) -> float:
    hits, predicted, positive = map(np.count_nonzero, (targets & predictions, predictions, targets))
    if positive in {0, len(targets)} or predicted in {0, len(targets)}:
        return 0.0  # scikit-learn's value, too, but it warns
    misses = positive - hits
    # Each pair of target and prediction once, with how often it is there: the same to the last bit.
    often = [len(targets) - predicted - misses, predicted - hits, misses, hits]
    return float(matthews_corrcoef([0, 0, 1, 1], [0, 1, 0, 1], sample_weight=often))


def _ranking(targets: Targets, probabilities: Probabilities) -> Scores:
    columns = range(targets.shape[1])
    precisions = [average_precision(targets[:, i], probabilities[:, i]) for i in columns]
    areas = [_roc_auc(targets[:, i], probabilities[:, i]) for i in columns]
    return {
        "micro_average_precision": average_precision(targets, probabilities),
        "micro_prevalence": float(targets.mean()),
        "macro_average_precision": _mean(precisions),
        "micro_roc_auc": _roc_auc(targets.ravel(), probabilities.ravel()),
        "macro_roc_auc": _mean(areas),
    }


def _label_ranking(targets: Targets, probabilities: Probabilities) -> Scores:
    """Rank each row's labels; a row without any scores 1, so the floor is far above 0."""
    # Constant probabilities: all labels are at least as probable, and a share of them is the row's.
    shares = targets.mean(axis=1)
    return {
        "label_ranking_average_precision": label_ranking_average_precision(targets, probabilities),
        "label_ranking_floor": float(np.where(shares > 0, shares, 1).mean()),
    }


def label_ranking_average_precision(targets: Targets, probabilities: Probabilities) -> float:
    """Return what scikit-learn's function of this name does, to the last bit.

    That one ranks row by row in Python, which takes minutes for a million of them.
    """
    rows, label_count = targets.shape
    values = np.ones(rows)  # of a row with all labels or none
    size = max(1, _PAIRS_AT_ONCE // label_count**2)
    for start in range(0, rows, size):
        block = slice(start, start + size)
        values[block] = _ranked(targets[block].astype(bool), probabilities[block], values[block])
    return float(np.cumsum(values)[-1] / rows)  # in the order of the rows, as they are added there


def _ranked(
    relevant: npt.NDArray[np.bool_], probabilities: Probabilities, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return each row's average precision; ``values`` where there is nothing to rank."""
    # [row, label, other]: the other label is at least as probable.
    above = probabilities[:, None, :] >= probabilities[:, :, None]
    shares = (above & relevant[:, None, :]).sum(axis=2) / above.sum(axis=2)
    counts = relevant.sum(axis=1)
    for count in range(1, relevant.shape[1]):
        rows = counts == count
        values[rows] = shares[rows][relevant[rows]].reshape(-1, count).mean(axis=1)
    return values


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


def brier(targets: Targets, probabilities: Probabilities) -> float:
    """Mean squared difference of probability and target over all entries (Brier 1950)."""
    # scikit-learn computes in the type of the probabilities; float32 would cost nine digits.
    values = probabilities.ravel().astype(np.float64)
    return float(brier_score_loss(targets.ravel(), values, pos_label=1))


def expected_calibration_error(targets: Targets, probabilities: Probabilities) -> float:
    """How far probabilities are from shares of positives (Naeini et al. 2015, AAAI).

    ``sum_b n_b / n * |mean probability of bin b - share of positives of bin b|`` over 10 bins of
    equal width, closed below and open above; the last holds 1 as well. scikit-learn has none.

    Args:
        targets: 0/1, of any shape: all entries count alike.
        probabilities: in [0, 1], of the same shape.
    """
    values = probabilities.ravel().astype(np.float64)
    bins = np.digitize(values, np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS)
    # A bin's weight n_b / n and the denominators of its two means cancel out.
    differences = np.bincount(bins, weights=values - targets.ravel())
    return float(np.abs(differences).sum() / len(values))


def _roc_auc(targets: Targets, probabilities: Probabilities) -> float | None:
    if not targets.any() or targets.all():
        return None
    return float(roc_auc_score(targets, probabilities))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
