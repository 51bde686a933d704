"""Every metric against scikit-learn, or a plain loop if it has no such metric, to 1e-12."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    jaccard_score,
    label_ranking_average_precision_score,
    matthews_corrcoef,
    mean_squared_error,
    precision_score,
    recall_score,
    roc_auc_score,
)

from toxbench.evaluation.definitions import METRICS
from toxbench.evaluation.metrics import (
    Probabilities,
    evaluate,
    headline,
    label_ranking_average_precision,
    score_labels,
)
from toxbench.records import Scores
from toxbench.util.arrays import UNLABELLED, Targets, hide_unlabelled

pytestmark = pytest.mark.slow

Case = tuple[Targets, Probabilities, list[float]]
Score = Callable[..., float]
SKLEARN: dict[str, Score] = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
GRID = [0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 1.0]  # ties, and edges of bins
many_examples = settings(derandomize=True, deadline=None, max_examples=100, database=None)
few_examples = settings(many_examples, max_examples=40)


def close_to(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-12)  # without rel, which None and str do not support


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw tables, many of them degenerate: constant, or with constant columns."""
    rows, labels = draw(st.integers(1, 30)), draw(st.integers(1, 6))
    parts = st.sampled_from([(rows, labels), (rows, labels), (1, labels), (1, 1)])
    kind, width = draw(st.sampled_from([(np.float32, 32), (np.float64, 64)]))
    values = (st.sampled_from(GRID) | st.floats(0, 1, width=width)).map(kind)
    targets = draw(arrays(np.uint8, draw(parts), elements=st.integers(0, 1)))
    probabilities = draw(arrays(kind, draw(parts), elements=values))
    thresholds = draw(st.lists(st.sampled_from(GRID), min_size=labels, max_size=labels))
    return broadcast(targets, (rows, labels)), broadcast(probabilities, (rows, labels)), thresholds


def broadcast(values: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(np.broadcast_to(values, shape))


def realistic_case(rows: int = 200, labels: int = 6) -> Case:
    """Draw a table like the real one: rare labels, one without a positive, no ties."""
    draw = np.random.default_rng(0)
    targets = (draw.random((rows, labels)) < [0.46, 0.2, 0.1, 0.05, 0.02, 0.0]).astype(np.uint8)
    probabilities = np.clip(0.3 * targets + draw.normal(0.3, 0.2, targets.shape), 0, 1)
    return targets, probabilities.astype(np.float32), [0.5] * labels


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def average_score(score: Score, targets: Targets, predictions: Targets, average: str) -> float:
    if targets.shape[1] > 1:
        return score(targets, predictions, average=average, zero_division=0)
    if average == "samples":  # the score of a single entry: 1 for a hit, else 0
        return float((targets & predictions).mean())
    return score(targets[:, 0], predictions[:, 0], zero_division=0)


def row_jaccard(targets: Targets, predictions: Targets) -> float:
    if targets.shape[1] == 1:  # 1 for a hit and for a row without targets and predictions
        return float((targets == predictions).mean())
    return float(jaccard_score(targets, predictions, average="samples", zero_division=1))


def mcc(targets: Targets, predictions: Targets) -> float:
    if (targets == targets[0]).all() and (predictions == targets[0]).all():
        return 0.0  # scikit-learn warns only in this case
    return float(matthews_corrcoef(targets, predictions))


def calibration_error(targets: Targets, probabilities: Probabilities) -> float:
    total = 0.0
    entries = list(zip(targets.ravel().tolist(), probabilities.ravel().tolist(), strict=True))
    for k in range(10):
        low, high = k / 10, (k + 1) / 10 if k < 9 else 1.1
        inside = [entry for entry in entries if low <= entry[1] < high]
        if inside:
            share = sum(target for target, _ in inside) / len(inside)
            expected = sum(value for _, value in inside) / len(inside)
            total += len(inside) / len(entries) * abs(expected - share)
    return total


def row_scores(targets: Targets, predictions: Targets) -> Scores:
    correct: dict[bool, list[float]] = {False: [], True: []}
    for truth, row in zip(targets.tolist(), predictions.tolist(), strict=True):
        correct[any(truth)].append(float(truth == row))
    return {
        "samples_jaccard": row_jaccard(targets, predictions),
        "subset_accuracy": float(accuracy_score(targets, predictions)),
        "subset_accuracy_empty": mean(correct[False]),
        "subset_accuracy_labelled": mean(correct[True]),
        "hamming_loss": float(hamming_loss(targets, predictions)),
    }


def all_label_scores(
    targets: Targets, probabilities: Probabilities, predictions: Targets
) -> list[Scores]:
    return [
        label_scores(targets[:, i], probabilities[:, i], predictions[:, i])
        for i in range(predictions.shape[1])
    ]


def label_scores(targets: Targets, probabilities: Probabilities, predictions: Targets) -> Scores:
    """Score entries as one label, with all binary scores."""
    has_positive, has_both = targets.any(), targets.any() and not targets.all()
    return {
        **{name: score(targets, predictions, zero_division=0) for name, score in SKLEARN.items()},
        "support": float(targets.sum()),
        "average_precision": average_precision_score(targets, probabilities)
        if has_positive
        else None,
        "roc_auc": roc_auc_score(targets, probabilities) if has_both else None,
        "prevalence": sum(targets.tolist()) / len(targets),
        "mcc": mcc(targets, predictions),
        "brier": mean_squared_error(targets, probabilities.astype(np.float64)),
        "expected_calibration_error": calibration_error(targets, probabilities),
    }


def reference(targets: Targets, probabilities: Probabilities, predictions: Targets) -> Scores:
    labels = all_label_scores(targets, probabilities, predictions)
    scored = [label for label in labels if label["support"]]
    micro = label_scores(targets.ravel(), probabilities.ravel(), predictions.ravel())
    scores: Scores = {"scored_labels": len(scored), **row_scores(targets, predictions)}
    for name, score in SKLEARN.items():
        for average in ("weighted", "samples"):
            scores[f"{average}_{name}"] = average_score(score, targets, predictions, average)
    for name in ("f1", "precision", "recall", "mcc", "average_precision", "roc_auc"):
        scores[f"micro_{name}"] = micro[name]
        scores[f"macro_{name}"] = mean([s for row in scored if (s := row[name]) is not None])
    scores["micro_prevalence"] = micro["prevalence"]
    for name in ("brier", "expected_calibration_error"):
        scores[name] = micro[name]
    for name, values in (("average_precision", probabilities), ("floor", np.zeros(targets.shape))):
        value = label_ranking_average_precision_score(targets, values)
        scores[f"label_ranking_{name}"] = value
    return scores


@many_examples
@given(cases())
@example(realistic_case())
def test_every_metric_agrees_with_scikit_learn(case: Case) -> None:
    targets, probabilities, thresholds = case
    predictions = (probabilities > np.array(thresholds)).astype(np.uint8)
    scores = evaluate(*case)
    assert scores == close_to(reference(targets, probabilities, predictions))
    for name, score in scores.items():
        assert score is None or METRICS[name].low <= score <= METRICS[name].high + 1e-12


@many_examples
@given(cases())
@example(realistic_case())
def test_every_label_agrees_with_scikit_learn(case: Case) -> None:
    targets, probabilities, thresholds = case
    predictions = (probabilities > np.array(thresholds)).astype(np.uint8)
    labels = [f"label {i}" for i in range(len(thresholds))]
    for i, row in enumerate(score_labels(labels, *case)):
        expected = label_scores(targets[:, i], probabilities[:, i], predictions[:, i])
        expected |= {"label": labels[i], "threshold": thresholds[i]}
        assert row.model_dump() == close_to(expected)


@many_examples
@given(cases(), st.integers(0, 2**32 - 1))
def test_unlabelled_entries_are_not_scored(case: Case, seed: int) -> None:
    targets, probabilities, thresholds = case
    labelled = np.random.default_rng(seed).random(targets.shape) < 0.7
    labelled[0] = True  # of every label, some row
    codes = np.where(labelled, targets, UNLABELLED).astype(np.uint8)
    hidden = hide_unlabelled(probabilities, codes)
    predictions = (hidden > np.array(thresholds)).astype(np.uint8)
    labels = [f"label {i}" for i in range(len(thresholds))]
    for i, row in enumerate(score_labels(labels, codes, hidden, thresholds)):
        rows = labelled[:, i]
        expected = label_scores(targets[rows, i], hidden[rows, i], predictions[rows, i])
        assert row.model_dump(exclude={"label", "threshold"}) == close_to(expected)
    scores = evaluate(codes, hidden, thresholds)
    micro = label_scores(targets[labelled], hidden[labelled], predictions[labelled])
    for name in ("f1", "precision", "recall", "mcc", "average_precision", "roc_auc", "prevalence"):
        assert scores[f"micro_{name}"] == close_to(micro[name])
    for name in ("brier", "expected_calibration_error"):
        assert scores[name] == close_to(micro[name])
    wrong = (targets != predictions) & labelled
    assert scores["hamming_loss"] == close_to(wrong.sum() / labelled.sum())
    assert scores["subset_accuracy"] == close_to((~wrong.any(axis=1)).mean())


@many_examples
@given(cases())
def test_headline_is_the_mean_of_two_metrics(case: Case) -> None:
    targets, probabilities, _ = case
    predictions = (probabilities > 0.5).astype(np.uint8)
    f1 = f1_score(targets.ravel(), predictions.ravel(), zero_division=0)
    exact = float((targets == predictions).all(axis=1).mean())
    assert headline(targets, probabilities) == close_to((f1 + exact) / 2)


@few_examples
@given(cases(), st.randoms(use_true_random=False))
def test_row_and_label_order_are_irrelevant(case: Case, random: Any) -> None:
    targets, probabilities, thresholds = case
    rows, labels = ([*range(size)] for size in targets.shape)
    random.shuffle(rows)
    random.shuffle(labels)
    scores = close_to(evaluate(*case))
    assert evaluate(targets[rows], probabilities[rows], thresholds) == scores
    shuffled = [thresholds[i] for i in labels]
    assert evaluate(targets[:, labels], probabilities[:, labels], shuffled) == scores


@few_examples
@given(cases())
def test_float32_and_float64_score_alike(case: Case) -> None:
    targets, probabilities, thresholds = case
    wide = probabilities.astype(np.float64)
    assert evaluate(targets, wide, thresholds) == close_to(evaluate(*case))


@pytest.mark.parametrize("labels", [2, 3, 12, 40])
@pytest.mark.parametrize("kind", ["ties", "none"])
def test_label_ranking_equals_scikit_learn_exactly(labels: int, kind: str) -> None:
    draw = np.random.default_rng(labels)
    targets = (draw.random((5_000, labels)) < draw.random((5_000, 1))).astype(np.uint8)
    probabilities = draw.random(targets.shape, np.float32)
    if kind == "ties":
        probabilities = np.round(probabilities, 1)
    expected = label_ranking_average_precision_score(targets, probabilities)
    assert label_ranking_average_precision(targets, probabilities) == expected
