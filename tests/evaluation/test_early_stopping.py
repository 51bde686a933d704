"""Which epoch is kept: the latest that validation cannot tell from the best one."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss

from toxbench.evaluation.bootstrap import jackknife_error
from toxbench.evaluation.early_stopping import EpochSelector, epoch_scores
from toxbench.evaluation.metrics import headline

Epoch = tuple[float | None, float | None]


def kept(epochs: list[Epoch]) -> int | None:
    """The epoch, counted from 1, whose weights are there in the end."""
    choice = EpochSelector()
    latest = None
    for number, (score, error) in enumerate(epochs, start=1):
        scores = {"headline": score, "headline_error": error}
        if choice.keep(scores):
            latest = number
    return latest


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ([(0.3, 0.0), (0.4, 0.0), (0.5, 0.0)], 3),
        ([(0.5, 0.04), (0.47, 0.04)], 2),
        ([(0.5, 0.04), (0.45, 0.04)], 1),
        ([(0.5, 0.04), (0.45, 0.9)], 1),  # the error is that of the highest epoch
        ([(0.5, 0.04), (0.45, 0.04), (0.47, 0.04)], 3),
        ([(0.5, 0.04), (0.47, 0.04), (0.44, 0.04)], 2),  # measured from the highest, not the kept
        ([(0.5, 0.04), (0.6, 0.02), (0.57, 0.04)], 2),  # a new highest brings its own error
        ([(0.5, 0.01), (0.6, 0.04), (0.57, 0.04)], 3),
        ([(0.5, 0.0), (0.5, 0.0)], 2),
        ([(0.0, 0.0)], 1),
        ([(None, 0.0), (None, 0.0)], 2),  # nothing to choose by: the last one
        ([(0.5, None), (0.49, 0.1)], 1),
        ([(0.5, 0.04), (None, 0.0)], 1),
    ],
)
def test_the_latest_epoch_within_one_error_of_the_highest_is_kept(
    epochs: list[Epoch], expected: int
) -> None:
    assert kept(epochs) == expected


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 16), st.integers(0, 5)).map(lambda n: (n[0] / 16, n[1] / 16)),
        min_size=1,
        max_size=8,
    )
)
@example([(0.5, 0.25), (0.5, 0.0), (0.375, 0.0)])
def test_choosing_epoch_by_epoch_chooses_as_if_all_were_known(
    epochs: list[tuple[float, float]],
) -> None:
    scores = [score for score, _ in epochs]
    highest = scores.index(max(scores))
    limit = scores[highest] - epochs[highest][1]
    expected = max(number for number, score in enumerate(scores, start=1) if score >= limit)
    assert kept([*epochs]) == expected


def test_the_scores_of_an_epoch_are_those_at_half() -> None:
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


def test_a_certain_and_wrong_probability_has_a_finite_loss() -> None:
    targets = np.array([[1, 0], [0, 1]], dtype=np.uint8)
    right = epoch_scores(targets, targets.astype(np.float32))
    wrong = epoch_scores(targets, 1 - targets.astype(np.float32))
    assert right["loss"] == 0
    assert wrong["loss"] == pytest.approx(-np.log(1e-7))


def test_an_epoch_without_validation_positives_has_no_average_precision() -> None:
    scores = epoch_scores(np.zeros((4, 2), dtype=np.uint8), np.full((4, 2), 0.25))
    assert scores["micro_average_precision"] is None
    assert (scores["micro_f1"], scores["headline"], scores["headline_error"]) == (0.0, 0.5, 0.0)
    assert scores["loss"] == pytest.approx(-np.log(0.75))


def test_a_single_validation_row_has_scores_and_no_error() -> None:
    scores = epoch_scores(np.ones((1, 3), np.uint8), np.full((1, 3), 0.75))
    assert scores["micro_f1"] == 1.0
    assert (scores["headline"], scores["headline_error"]) == (1.0, 0.0)
