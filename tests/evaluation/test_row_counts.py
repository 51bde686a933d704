"""Scores from counts agree with scikit-learn for any rows."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.metrics import evaluate, predict
from toxbench.evaluation.row_counts import COUNTS, SCORES, VALUES, row_counts
from toxbench.util.arrays import Targets

COUNTED = [name for name in SCORES if name not in VALUES]
STANDARD = [name for name in COUNTED if name != "excess_accuracy"]


def scores(targets: Targets, predictions: npt.NDArray[np.uint8]) -> dict[str, float]:
    sums = row_counts(targets, predictions).sum(axis=0, dtype=np.float64)
    return {name: float(SCORES[name](sums)) for name in COUNTED}


@st.composite
def tables(draw: st.DrawFn) -> tuple[Targets, npt.NDArray[np.float64]]:
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 5)))
    targets = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    return targets, draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.2, 0.5, 0.8])))


@settings(deadline=None, max_examples=60)
@given(tables())
def test_scores_agree_with_evaluate(
    table: tuple[Targets, npt.NDArray[np.float64]],
) -> None:
    targets, probabilities = table
    thresholds = [0.5] * targets.shape[1]
    expected = evaluate(targets, probabilities, thresholds)
    values = scores(targets, predict(probabilities, thresholds))
    standard = {name: values[name] for name in STANDARD}
    assert standard == {name: pytest.approx(expected[name], abs=1e-12) for name in STANDARD}
    never = evaluate(targets, np.zeros_like(probabilities), thresholds)["subset_accuracy"]
    excess = values["subset_accuracy"] - (never or 0)
    assert values["excess_accuracy"] == pytest.approx(excess, abs=1e-12)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("prediction", [0, 1])
@pytest.mark.parametrize("rows", [1, 7])
def test_constant_tables_agree_with_evaluate(target: int, prediction: int, rows: int) -> None:
    targets = np.full((rows, 3), target, dtype=np.uint8)
    predictions = np.full((rows, 3), prediction, dtype=np.uint8)
    expected = evaluate(targets, predictions.astype(np.float64), [0.5] * 3)
    values = scores(targets, predictions)
    assert {name: values[name] for name in STANDARD} == {n: expected[n] for n in STANDARD}


def test_counts_of_a_row_by_hand() -> None:
    targets = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], dtype=np.uint8)
    predictions = np.array([[1, 0, 1, 0], [0, 0, 0, 1]], dtype=np.uint8)
    assert COUNTS == (
        "true_positives", "false_positives", "false_negatives", "exact", "empty", "one",
    )  # fmt: skip
    assert row_counts(targets, predictions).tolist() == [[1, 1, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1]]
    assert row_counts(0 * targets, predictions)[:, 4].tolist() == [1, 1]


def test_weighting_rows_equals_repeating_them() -> None:
    rng = np.random.default_rng(0)
    targets, predictions = rng.integers(0, 2, (2, 30, 4), dtype=np.uint8)
    sample = rng.integers(0, 30, 50)
    weights = np.bincount(sample, minlength=30)
    sums = weights @ row_counts(targets, predictions).astype(np.float64)
    expected = scores(targets[sample], predictions[sample])
    assert {name: float(SCORES[name](sums)) for name in COUNTED} == pytest.approx(expected)


def test_no_rows_score_zero() -> None:
    empty = np.zeros((0, 3), dtype=np.uint8)
    assert row_counts(empty, empty).shape == (0, len(COUNTS))
    assert scores(empty, empty) == dict.fromkeys(COUNTED, 0.0)


def test_scores_accept_leading_axes() -> None:
    sums = np.random.default_rng(0).integers(0, 9, (3, 2, len(COUNTS))).astype(np.float64)
    for name in HEADLINES:
        values = SCORES[name](sums)
        assert values.shape == (3, 2)
        assert values[2, 1] == SCORES[name](sums[2, 1])
