"""Selection of the best epoch by validation scores, and the scores of an epoch."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss

from toxbench.evaluation.early_stopping import EpochSelector, epoch_scores, jackknife_error
from toxbench.evaluation.metrics import headline

Epoch = tuple[float | None, float | None]


def select_epoch(epochs: list[Epoch]) -> int | None:
    """Return the epoch that is selected last, counted from 1."""
    selector = EpochSelector()
    selected = None
    for number, (score, error) in enumerate(epochs, start=1):
        if selector.should_keep({"headline": score, "headline_error": error}):
            selected = number
    return selected


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ([(0.3, 0.0), (0.4, 0.0), (0.5, 0.0)], 3),
        ([(0.5, 0.04), (0.47, 0.04)], 2),
        ([(0.5, 0.04), (0.45, 0.04)], 1),
        ([(0.5, 0.04), (0.45, 0.9)], 1),  # the error is that of the highest epoch
        ([(0.5, 0.04), (0.45, 0.04), (0.47, 0.04)], 3),
        (
            [(0.5, 0.04), (0.47, 0.04), (0.44, 0.04)],
            2,
        ),  # relative to the highest, not to the selected
        ([(0.5, 0.04), (0.6, 0.02), (0.57, 0.04)], 2),  # a new highest score has a new error
        ([(0.5, 0.01), (0.6, 0.04), (0.57, 0.04)], 3),
        ([(0.5, 0.0), (0.5, 0.0)], 2),
        ([(0.0, 0.0)], 1),
        ([(None, 0.0), (None, 0.0)], 2),  # without scores, the last epoch
        ([(0.5, None), (0.49, 0.1)], 1),
        ([(0.5, 0.04), (None, 0.0)], 1),
    ],
)
def test_latest_epoch_within_one_error_wins(epochs: list[Epoch], expected: int) -> None:
    assert select_epoch(epochs) == expected


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 16), st.integers(0, 5)).map(lambda n: (n[0] / 16, n[1] / 16)),
        min_size=1,
        max_size=8,
    )
)
@example([(0.5, 0.25), (0.5, 0.0), (0.375, 0.0)])
def test_selection_equals_that_of_all_epochs(
    epochs: list[tuple[float, float]],
) -> None:
    scores = [score for score, _ in epochs]
    highest = scores.index(max(scores))
    limit = scores[highest] - epochs[highest][1]
    expected = max(number for number, score in enumerate(scores, start=1) if score >= limit)
    assert select_epoch([*epochs]) == expected


def test_epoch_scores_are_at_threshold_half() -> None:
    draw = np.random.default_rng(0)
    targets = (draw.random((80, 4)) < 0.3).astype(np.uint8)
    probabilities = np.clip(0.3 * targets + draw.normal(0.4, 0.15, targets.shape), 0.01, 0.99)
    probabilities = probabilities.astype(np.float32)
    predicted = (probabilities > 0.5).astype(int)
    f1 = f1_score(targets, predicted, average="micro")
    accuracy = accuracy_score(targets, predicted)
    scores = epoch_scores(targets, probabilities)
    assert scores == {
        "headline_error": pytest.approx(jackknife_error(headline, targets, probabilities)),
        "headline": pytest.approx((f1 + accuracy) / 2),
        "micro_f1": pytest.approx(f1),
        "subset_accuracy": pytest.approx(accuracy),
        "micro_average_precision": pytest.approx(
            average_precision_score(targets.ravel(), probabilities.ravel())
        ),
        "loss": pytest.approx(log_loss(targets.ravel(), probabilities.ravel().astype("f8"))),
    }
    assert scores["headline_error"] == jackknife_error(headline, targets, probabilities) > 0


def test_loss_of_certain_errors_is_finite() -> None:
    targets = np.array([[1, 0], [0, 1]], dtype=np.uint8)
    right = epoch_scores(targets, targets.astype(np.float32))
    wrong = epoch_scores(targets, 1 - targets.astype(np.float32))
    assert right["loss"] == 0
    assert wrong["loss"] == pytest.approx(-np.log(1e-7))


def test_no_average_precision_without_validation_positives() -> None:
    scores = epoch_scores(np.zeros((4, 2), dtype=np.uint8), np.full((4, 2), 0.25))
    assert scores["micro_average_precision"] is None
    assert (scores["micro_f1"], scores["headline"], scores["headline_error"]) == (0.0, 0.5, 0.0)
    assert scores["loss"] == pytest.approx(-np.log(0.75))


def test_single_validation_row_has_no_error() -> None:
    scores = epoch_scores(np.ones((1, 3), np.uint8), np.full((1, 3), 0.75))
    assert scores["micro_f1"] == 1.0
    assert (scores["headline"], scores["headline_error"]) == (1.0, 0.0)
