"""The metrics: values by hand, labels without support, and degenerate tables."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from toxbench.evaluation.definitions import METRICS
from toxbench.evaluation.metrics import (
    Probabilities,
    evaluate,
    expected_calibration_error,
    is_constant,
    predict,
    score_labels,
)
from toxbench.util.arrays import Targets

SKLEARN = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
Case = tuple[Targets, Probabilities, list[float]]


def random_case(rows: int = 300, labels: int = 12) -> Case:
    """Draw a table like the real one: rare labels, two of them without a positive."""
    draw = np.random.default_rng(0)
    shares = np.array([0.46, 0.35, 0.02, 0.16, 0.1, 0.14, 0.12, 0.02, 0.02, 0.0, 0.03, 0.0])
    targets = (draw.random((rows, labels)) < shares[:labels]).astype(np.uint8)
    probabilities = np.clip(0.3 * targets + draw.normal(0.3, 0.2, targets.shape), 0, 1)
    return targets, probabilities.astype(np.float32), [0.5] * labels


def zeros(targets: Targets) -> Probabilities:
    return np.zeros(targets.shape, dtype=np.float32)


def test_small_table_scores_by_hand() -> None:
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=np.uint8)
    probabilities = np.array([[0.9, 0.2, 0.1], [0.8, 0.3, 0.1], [0.6, 0.1, 0.7], [0.4, 0.1, 0.2]])
    scores = evaluate(targets, probabilities, [0.5, 0.5, 0.5])
    # 2 hits among 4 predictions and 4 positives; the first label has 2 of 3 and 3.
    assert scores["micro_f1"] == pytest.approx(1 / 2)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["weighted_f1"] == pytest.approx((3 * 2 / 3 + 0) / 4)
    assert scores["samples_f1"] == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert scores["subset_accuracy"] == 1 / 4
    assert scores["subset_accuracy_empty"] == 0
    assert scores["subset_accuracy_labelled"] == pytest.approx(1 / 3)
    assert scores["hamming_loss"] == pytest.approx(4 / 12)
    assert scores["macro_average_precision"] == pytest.approx(((1 + 1 + 3 / 4) / 3 + 1) / 2)
    assert scores["macro_roc_auc"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["scored_labels"] == 2
    # 2 hits, 2 false alarms, 2 misses, 6 true negatives; true labels rank first in each row.
    assert scores["micro_mcc"] == pytest.approx((2 * 6 - 2 * 2) / (4 * 4 * 8 * 8) ** 0.5)
    assert scores["macro_mcc"] == pytest.approx((-1 / 3 + 0) / 2)
    assert scores["micro_prevalence"] == pytest.approx(4 / 12)
    assert scores["label_ranking_average_precision"] == 1
    assert scores["label_ranking_floor"] == pytest.approx((1 / 3 + 2 / 3 + 1 + 1 / 3) / 4)
    assert scores["brier"] == pytest.approx((0.06 + 0.54 + 0.86 + 0.41) / 12)


def test_calibration_error_weights_its_bins() -> None:
    targets = np.array([1, 0, 0, 1, 1], dtype=np.uint8)
    probabilities = np.array([0.1, 0.15, 0.2, 0.95, 1.0])
    # An edge belongs to the bin above it: 0.1 and 0.15 share a bin, 0.2 is in the next.
    expected = 2 / 5 * abs(0.125 - 1 / 2) + 1 / 5 * 0.2 + 2 / 5 * abs(0.975 - 1)
    assert expected_calibration_error(targets, probabilities) == pytest.approx(expected)
    assert expected_calibration_error(targets, targets.astype(np.float32)) == 0


def test_empty_rows_raise_the_label_ranking_floor() -> None:
    targets = np.zeros((4, 2), dtype=np.uint8)
    targets[0] = [1, 0]
    scores = evaluate(targets, np.array([[0.2, 0.8]] * 4), [0.5, 0.5])
    assert scores["label_ranking_average_precision"] == scores["label_ranking_floor"] == 3.5 / 4


def test_every_defined_metric_is_computed() -> None:
    assert list(evaluate(*random_case())) == list(METRICS)


def test_macro_scores_ignore_labels_without_positives() -> None:
    targets, probabilities, thresholds = random_case()
    scored = targets.any(axis=0)
    complete = evaluate(targets, probabilities, thresholds)
    part = evaluate(targets[:, scored], probabilities[:, scored], thresholds[: scored.sum()])
    names = [name for name in METRICS if name.startswith("macro")]
    assert scored.sum() == complete["scored_labels"] == 10
    assert {name: complete[name] for name in names} == {name: part[name] for name in names}


def test_macro_average_of_one_label_is_binary() -> None:
    targets = np.array([[1, 0], [0, 0], [0, 0]], dtype=np.uint8)
    probabilities = np.array([[0.9, 0.9], [0.9, 0.1], [0.1, 0.1]])
    assert evaluate(targets, probabilities, [0.5, 0.5])["macro_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("labels", [1, 12])
def test_always_negative_is_right_for_empty_rows(labels: int) -> None:
    targets, _, thresholds = random_case(labels=labels)
    scores = evaluate(targets, zeros(targets), thresholds)
    assert scores["subset_accuracy"] == pytest.approx(np.mean(~targets.any(axis=1)))
    assert scores["hamming_loss"] == pytest.approx(targets.mean())
    for average in ("micro", "macro", "weighted", "samples"):
        assert [scores[f"{average}_{name}"] for name in SKLEARN] == [0, 0, 0]
    assert scores["micro_average_precision"] == pytest.approx(targets.mean())
    assert scores["micro_roc_auc"] == scores["macro_roc_auc"] == 0.5


def test_perfect_predictions_score_best() -> None:
    targets, _, thresholds = random_case(labels=9)
    full = targets[targets.any(axis=1)]
    scores = evaluate(full, full.astype(np.float32), thresholds[:9])
    assert scores.pop("scored_labels") == 9
    assert scores.pop("subset_accuracy_empty") is None  # no row is empty
    assert scores.pop("micro_prevalence") == pytest.approx(full.mean())
    assert scores.pop("label_ranking_floor") == pytest.approx(full.mean())
    best = {name: METRICS[name].high if METRICS[name].direction == "higher" else 0.0
            for name in scores}  # fmt: skip
    assert scores == pytest.approx(best)


@pytest.mark.parametrize(
    ("value", "undefined"),
    [
        (0, {"macro_f1", "macro_precision", "macro_recall", "micro_average_precision",
             "macro_average_precision", "micro_roc_auc", "macro_roc_auc", "macro_mcc",
             "subset_accuracy_labelled"}),
        (1, {"micro_roc_auc", "macro_roc_auc", "subset_accuracy_empty"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (4, 3)])
def test_only_undefined_metrics_are_none(
    value: int, undefined: set[str], shape: tuple[int, int]
) -> None:
    targets = np.full(shape, value, dtype=np.uint8)
    scores = evaluate(targets, np.full(shape, 0.7), [0.5] * shape[1])
    assert {name for name, score in scores.items() if score is None} == undefined
    assert all(type(score) is float for score in scores.values() if score is not None)


def test_each_label_has_its_threshold() -> None:
    probabilities = np.array([[0.5, 0.5], [0.25, 0.25], [0.75, 0.125]], dtype=np.float32)
    predictions = predict(probabilities, [0.5, 0.125])
    assert predictions.tolist() == [[0, 1], [0, 1], [1, 0]]
    assert predictions.dtype == np.uint8


@pytest.mark.parametrize(
    ("predictions", "constant"),
    [
        ([[0, 0], [0, 0]], True),
        ([[0, 1], [0, 1], [0, 1]], True),
        ([[1, 0]], True),
        ([[0, 0], [0, 1]], False),
        ([[1, 1], [0, 0]], False),
    ],
)
def test_equal_predictions_for_all_rows_are_constant(
    predictions: list[list[int]], constant: bool
) -> None:
    assert is_constant(np.array(predictions, dtype=np.uint8)) is constant


@pytest.mark.parametrize("labels", [1, 12])
def test_labels_are_scored_separately(labels: int) -> None:
    targets, probabilities, _ = random_case(labels=labels)
    thresholds = [0.3 + 0.02 * i for i in range(labels)]
    names = [f"label {i}" for i in range(labels)]
    table = score_labels(names, targets, probabilities, thresholds)
    assert [row.label for row in table] == names
    assert [row.threshold for row in table] == thresholds
    assert [row.support for row in table] == targets.sum(axis=0).tolist()
    for i, row in enumerate(table):
        truth, values = targets[:, i], probabilities[:, i]
        predicted = (values > thresholds[i]).astype(int)
        assert row.f1 == pytest.approx(f1_score(truth, predicted, zero_division=0))
        assert row.precision == pytest.approx(precision_score(truth, predicted, zero_division=0))
        assert row.recall == pytest.approx(recall_score(truth, predicted, zero_division=0))
        if row.support:
            assert row.average_precision == pytest.approx(average_precision_score(truth, values))
            assert row.roc_auc == pytest.approx(roc_auc_score(truth, values))
        else:
            assert (row.average_precision, row.roc_auc) == (None, None)
