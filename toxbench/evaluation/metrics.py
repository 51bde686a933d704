"""The shared multi-label metrics, with the values of scikit-learn.

A label without a positive row is excluded from macro averages, macro average precision and macro
ROC AUC; the metric ``scored_labels`` is the number of labels included. A division by zero (if
nothing is predicted, for example) gives 0. Undefined values are None. Entries that are not labelled
have code `UNLABELLED` and probability 0: they are no hits, errors or positives, and are left out
where true negatives count.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from toxbench.evaluation.definitions import METRICS, VERSIONS
from toxbench.evaluation.row_counts import divide_or_0
from toxbench.evaluation.thresholds import predict
from toxbench.records import LabelScores, Part, Scores
from toxbench.util.arrays import (
    UNLABELLED,
    Codes,
    Floats,
    Predictions,
    Probabilities,
    Targets,
    known_targets,
)

CALIBRATION_BINS = 10
Values = TypeVar("Values", bound=npt.NDArray[Any])
_PAIRS_PER_CHUNK = 1 << 22  # pairs of labels that are compared at a time


def evaluate(
    codes: Codes, probabilities: Probabilities, thresholds: Sequence[float]
) -> dict[str, float | None]:
    """Compute every metric of `METRICS`.

    Args:
        codes: ``[row, label]``, at least one row.
        probabilities: in [0, 1], ``[row, label]``.
        thresholds: one for each label; a probability above it is a positive prediction.

    Returns:
        metric name -> value in the order of `METRICS`, None if it is undefined.
    """
    shared = _threshold_free_scores(codes, probabilities)
    return _complete_scores(shared, codes, probabilities, thresholds)


def score_labels(
    labels: Sequence[str],
    codes: Codes,
    probabilities: Probabilities,
    thresholds: Sequence[float],
) -> tuple[LabelScores, ...]:
    """Score each label separately; ``labels`` are names, the other arguments as in `evaluate`."""
    shared = _threshold_free_label_scores(labels, codes, probabilities)
    return _complete_label_scores(shared, codes, probabilities, thresholds)


def score_cell(
    labels: Sequence[str],
    codes: Mapping[Part, Codes],
    probabilities: Mapping[Part, Probabilities],
    thresholds: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """Return the record fields that scores determine.

    They are ``metrics``, ``per_label``, ``has_constant_predictions`` and ``versions``.

    Args:
        labels: names.
        codes: part -> ``[row, label]``.
        probabilities: part -> in [0, 1], ``[row, label]``.
        thresholds: rule -> one threshold for each label; the rules include 0.5.
    """
    parts = {part: (codes[part], probabilities[part]) for part in codes if len(codes[part])}
    shared = {part: _threshold_free_scores(*arrays) for part, arrays in parts.items()}
    tested = codes["test"], probabilities["test"]
    shared_by_label = _threshold_free_label_scores(labels, *tested)
    return {
        "metrics": {
            rule: {
                part: _complete_scores(shared[part], *arrays, values)
                for part, arrays in parts.items()
            }
            for rule, values in thresholds.items()
        },
        "per_label": {
            rule: _complete_label_scores(shared_by_label, *tested, values)
            for rule, values in thresholds.items()
        },
        "has_constant_predictions": is_constant(
            predict(probabilities["test"], [0.5] * len(labels))
        ),
        "versions": dict(VERSIONS),
    }


def is_constant(predictions: Predictions) -> bool:
    """Whether every row gets the same prediction."""
    return bool((predictions == predictions[:1]).all())


def known_entries(codes: Codes, values: Values) -> tuple[Targets, Values]:
    """Return the targets and the values of the labelled entries, ``[entry]``, row by row.

    If none is labelled, one negative entry with value 0 is returned.
    """
    labelled = codes != UNLABELLED
    known, of_known = codes[labelled], values[labelled]
    if not len(known):
        known, of_known = np.zeros(1, codes.dtype), np.zeros(1, values.dtype)
    return known, cast("Values", of_known)


def headline(targets: Targets, probabilities: Probabilities) -> float:
    """Return the mean of micro-F1 and subset accuracy at 0.5; arguments as in `evaluate`."""
    predictions = predict(probabilities, [0.5] * targets.shape[1])
    f1 = _precision_recall_f1(_count_entries(targets, predictions).sum(axis=1))[2]
    return float(f1 + (targets == predictions).all(axis=1).mean()) / 2


def average_precision(targets: Targets, probabilities: Probabilities) -> float | None:
    """Return the average precision over all entries; None if none is positive."""
    targets, probabilities = targets.ravel(), probabilities.ravel()
    if not targets.any():
        return None
    return float(average_precision_score(targets, probabilities))


def brier(targets: Targets, probabilities: Probabilities) -> float:
    """Return the mean squared difference of probability and target over entries (Brier 1950)."""
    # scikit-learn computes in the dtype of the probabilities; float32 would lose nine digits.
    values = probabilities.ravel().astype(np.float64)
    return float(brier_score_loss(targets.ravel(), values, pos_label=1))


def samples_jaccard(targets: Targets, predictions: Predictions) -> float:
    """Return the mean over rows of |targets and predictions| / |targets or predictions|.

    A row without targets and predictions counts 1, as in the evaluation of SemEval-2018 task 1 E-c
    (Mohammad et al. 2018) and in ``jaccard_score(average="samples", zero_division=1)`` of
    scikit-learn.

    Args:
        targets: 0/1, ``[row, label]``.
        predictions: 0/1, ``[row, label]``.
    """
    shared = np.count_nonzero(targets & predictions, axis=1)
    united = np.count_nonzero(targets | predictions, axis=1)
    return float(np.where(united > 0, shared / np.maximum(united, 1), 1).mean())


def expected_calibration_error(targets: Targets, probabilities: Probabilities) -> float:
    """Return the expected calibration error (Naeini et al. 2015, AAAI).

    ``sum_b n_b / n * |mean probability of bin b - share of positives of bin b|`` over 10 bins of
    equal width, closed below and open above; the last one includes 1. scikit-learn has no such
    function.

    Args:
        targets: 0/1, of any shape; all entries have equal weight.
        probabilities: in [0, 1], of the same shape.
    """
    values = probabilities.ravel().astype(np.float64)
    bins = np.digitize(values, np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS)
    # The weight n_b / n of a bin and the denominators of its two means cancel out.
    differences = np.bincount(bins, weights=values - targets.ravel())
    return float(np.abs(differences).sum() / len(values))


def label_ranking_average_precision(targets: Targets, probabilities: Probabilities) -> float:
    """Return exactly the value of ``sklearn.metrics.label_ranking_average_precision_score``.

    scikit-learn ranks row by row in Python, which takes minutes for a million rows.

    Args:
        targets: 0/1, ``[row, label]``.
        probabilities: ``[row, label]``.
    """
    rows, label_count = targets.shape
    values = np.ones(rows)  # 1 for a row with all labels or none
    size = max(1, _PAIRS_PER_CHUNK // label_count**2)
    for start in range(0, rows, size):
        block = slice(start, start + size)
        relevant = targets[block].astype(bool)
        values[block] = _rank_labels(relevant, probabilities[block], values[block])
    return float(np.cumsum(values)[-1] / rows)  # scikit-learn, too, adds in the order of the rows


def _threshold_free_scores(codes: Codes, probabilities: Probabilities) -> Scores:
    """Compute the metrics that do not depend on thresholds; this takes most of the time."""
    entries = known_entries(codes, probabilities)
    return {
        "scored_labels": float((codes == 1).any(axis=0).sum()),
        **_ranking_scores(codes, probabilities),
        **_label_ranking_scores(codes, probabilities),
        "brier": brier(*entries),
        "expected_calibration_error": expected_calibration_error(*entries),
    }


def _complete_scores(
    shared: Scores, codes: Codes, probabilities: Probabilities, thresholds: Sequence[float]
) -> Scores:
    """Add the metrics that depend on thresholds to the others, in the order of `METRICS`."""
    predictions = predict(probabilities, thresholds)
    counts = _count_entries(codes, predictions)
    entries, positive, predicted, hits = counts.sum(axis=1)
    scores = {
        **shared,
        **_averaged_scores(codes, predictions, counts),
        **_accuracy_scores(known_targets(codes), predictions),
        "hamming_loss": float(divide_or_0(positive + predicted - 2 * hits, entries)),
        **_correlation_scores(counts),
    }
    return {name: scores[name] for name in METRICS}


def _threshold_free_label_scores(
    labels: Sequence[str], codes: Codes, probabilities: Probabilities
) -> list[dict[str, Any]]:
    """Return the fields of `LabelScores` that do not depend on thresholds, for each label."""
    scores = []
    for i, label in enumerate(labels):
        entries = known_entries(codes[:, i], probabilities[:, i])
        scores.append(
            {
                "label": label,
                "support": int((codes[:, i] == 1).sum()),
                "average_precision": average_precision(*entries),
                "roc_auc": _roc_auc(*entries),
                "prevalence": float(entries[0].mean()),
                "brier": brier(*entries),
                "expected_calibration_error": expected_calibration_error(*entries),
            }
        )
    return scores


def _complete_label_scores(
    shared: Sequence[Mapping[str, Any]],
    codes: Codes,
    probabilities: Probabilities,
    thresholds: Sequence[float],
) -> tuple[LabelScores, ...]:
    """Add the scores of each label that depend on thresholds to the others."""
    counts = _count_entries(codes, predict(probabilities, thresholds))
    precision, recall, f1 = _precision_recall_f1(counts)
    mcc = _mcc(*counts)
    return tuple(
        LabelScores(
            **of_label,
            threshold=float(thresholds[i]),
            precision=float(precision[i]),
            recall=float(recall[i]),
            f1=float(f1[i]),
            mcc=float(mcc[i]),
        )
        for i, of_label in enumerate(shared)
    )


def _averaged_scores(codes: Codes, predictions: Predictions, counts: Floats) -> Scores:
    """Average precision, recall and F1; ``counts`` are those of each label."""
    of_labels = _precision_recall_f1(counts)
    positive = counts[1]
    scored = positive > 0
    weights = positive if scored.any() else None  # without a positive entry, all scores are 0
    averages = {
        "micro": _precision_recall_f1(counts.sum(axis=1)),
        "macro": of_labels[:, scored].mean(axis=1) if scored.any() else [None] * 3,
        "weighted": np.average(of_labels, axis=1, weights=weights),
        "samples": _precision_recall_f1(_count_entries(codes, predictions, axis=1)).mean(axis=1),
    }
    return {
        f"{average}_{name}": None if value is None else float(value)
        for average, values in averages.items()
        for name, value in zip(("precision", "recall", "f1"), values, strict=True)
    }


def _accuracy_scores(targets: Targets, predictions: Predictions) -> Scores:
    labelled = targets.any(axis=1)
    return {
        "samples_jaccard": samples_jaccard(targets, predictions),
        "subset_accuracy": _subset_accuracy(targets, predictions),
        "subset_accuracy_empty": _subset_accuracy(targets[~labelled], predictions[~labelled]),
        "subset_accuracy_labelled": _subset_accuracy(targets[labelled], predictions[labelled]),
    }


def _subset_accuracy(targets: Targets, predictions: Predictions) -> float | None:
    return float((targets == predictions).all(axis=1).mean()) if len(targets) else None


def _correlation_scores(counts: Floats) -> Scores:
    scored = counts[1] > 0
    return {
        "micro_mcc": float(_mcc(*counts.sum(axis=1))),
        "macro_mcc": float(_mcc(*counts[:, scored]).mean()) if scored.any() else None,
    }


def _count_entries(codes: Codes, predictions: Predictions, axis: int = 0) -> Floats:
    """Count labelled entries, positives, positive predictions and hits.

    Args:
        codes: ``[row, label]``.
        predictions: 0/1, ``[row, label]``.
        axis: the axis to sum over.

    Returns:
        ``[4, label]``, or ``[4, row]`` if the axis is 1; floats, because products of them do not
        fit in integers.
    """
    labelled, positive = codes != UNLABELLED, codes == 1
    predicted = (predictions == 1) & labelled
    entries = (labelled, positive, predicted, positive & predicted)
    return np.stack([part.sum(axis=axis, dtype=np.float64) for part in entries])


def _precision_recall_f1(counts: Floats) -> Floats:
    """Return precision, recall and F1, ``[3, ...]``, of the counts ``[4, ...]``."""
    _, positive, predicted, hits = counts
    return np.stack(
        [
            divide_or_0(hits, predicted),
            divide_or_0(hits, positive),
            divide_or_0(2 * hits, predicted + positive),
        ]
    )


def _mcc(entries: Floats, positive: Floats, predicted: Floats, hits: Floats) -> Floats:
    """Return Matthews correlation coefficients (Matthews 1975) from counts of entries.

    They are 0 if the targets or the predictions are constant. scikit-learn has a function for one
    label, which takes milliseconds a call; a cell needs hundreds of values.
    """
    variances = positive * (entries - positive) * (predicted * (entries - predicted))
    covariances = hits * entries - positive * predicted
    return np.asarray(covariances / np.sqrt(np.where(variances > 0, variances, np.inf)))


def _ranking_scores(codes: Codes, probabilities: Probabilities) -> Scores:
    entries = known_entries(codes, probabilities)
    columns = [known_entries(codes[:, i], probabilities[:, i]) for i in range(codes.shape[1])]
    return {
        "micro_average_precision": average_precision(*entries),
        "micro_prevalence": float(entries[0].mean()),
        "macro_average_precision": _mean([average_precision(*column) for column in columns]),
        "micro_roc_auc": _roc_auc(*entries),
        "macro_roc_auc": _mean([_roc_auc(*column) for column in columns]),
    }


def _roc_auc(targets: Targets, probabilities: Probabilities) -> float | None:
    if not targets.any() or targets.all():
        return None
    return float(roc_auc_score(targets, probabilities))


def _label_ranking_scores(codes: Codes, probabilities: Probabilities) -> Scores:
    """Rank each row's labels; a row without labels scores 1, so the floor is far above 0."""
    # If probabilities are constant, a row's value is the share of labels that are true.
    targets, counts = known_targets(codes), np.count_nonzero(codes != UNLABELLED, axis=1)
    shares = targets.sum(axis=1) / np.maximum(counts, 1)
    return {
        "label_ranking_average_precision": label_ranking_average_precision(targets, probabilities),
        "label_ranking_floor": float(np.where(shares > 0, shares, 1).mean()),
    }


def _rank_labels(
    relevant: npt.NDArray[np.bool_], probabilities: Probabilities, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return each row's average precision; rows with all labels or none keep their ``values``."""
    # [row, i, j]: label j is at least as probable as label i.
    above = probabilities[:, None, :] >= probabilities[:, :, None]
    shares = (above & relevant[:, None, :]).sum(axis=2) / above.sum(axis=2)
    counts = relevant.sum(axis=1)
    for count in range(1, relevant.shape[1]):
        rows = counts == count
        values[rows] = shares[rows][relevant[rows]].reshape(-1, count).mean(axis=1)
    return values


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
