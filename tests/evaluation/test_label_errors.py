"""Rows to review: planted errors are found, clean or constant labels give none."""

from collections.abc import Sequence

import numpy as np
import pytest

from toxbench.evaluation.label_errors import (
    LabelIssue,
    find_disagreements,
    find_hard_rows,
    find_label_issues,
    judgeable_labels,
    majority_vote,
    mean_probabilities,
    row_losses,
)
from toxbench.util.arrays import Floats, Targets

SEEDS = range(5)


def make_predictions(seed: int, rows: int = 300) -> tuple[Targets, Floats]:
    """Return labels of three prevalences, and probabilities that fit them with some noise."""
    draw = np.random.default_rng(seed)
    targets = (draw.random((rows, 3)) < [0.5, 0.2, 0.1]).astype(np.uint8)
    return targets, np.clip(0.1 + 0.8 * targets + draw.normal(0, 0.05, targets.shape), 0, 1)


def plant_errors(
    targets: Targets, probabilities: Floats, seed: int
) -> tuple[Targets, Floats, set[tuple[int, int]]]:
    """Change four entries of each column, two of each class, with confident probabilities."""
    draw = np.random.default_rng(seed)
    changed, probabilities = targets.copy(), probabilities.copy()
    for label in range(targets.shape[1]):
        for value in (0, 1):
            rows = draw.choice(np.flatnonzero(targets[:, label] == value), 2, replace=False)
            changed[rows, label] = 1 - value
            probabilities[rows, label] = 0.98 if value else 0.02
    planted = np.argwhere(changed != targets).tolist()
    return changed, probabilities, {(row, label) for row, label in planted}


def entries(issues: Sequence[LabelIssue]) -> set[tuple[int, int]]:
    return {(issue.row, issue.label) for issue in issues}


@pytest.mark.parametrize("seed", SEEDS)
def test_exactly_the_planted_errors_are_reported(seed: int) -> None:
    targets, probabilities, wrong = plant_errors(*make_predictions(seed), seed)
    issues = find_label_issues(targets, probabilities)
    assert entries(issues) == wrong
    assert all(issue.has_label == targets[issue.row, issue.label] for issue in issues)


@pytest.mark.parametrize("seed", SEEDS)
def test_planted_errors_precede_prediction_errors(seed: int) -> None:
    targets, probabilities = make_predictions(seed)
    hard = np.random.default_rng(seed).random(targets.shape) < 0.1
    probabilities[hard] = np.abs(targets[hard] - 0.9)  # confident errors of the candidate
    targets, probabilities, wrong = plant_errors(targets, probabilities, seed)
    issues = find_label_issues(targets, probabilities)
    assert len(issues) > len(wrong)
    assert entries(issues[: len(wrong)]) == wrong
    confidences = [issue.self_confidence for issue in issues]
    assert confidences == sorted(confidences)


@pytest.mark.parametrize("seed", SEEDS)
def test_correct_labels_give_no_issues(seed: int) -> None:
    targets, probabilities = make_predictions(seed)
    assert find_label_issues(targets, probabilities) == []
    assert find_hard_rows(targets, {"a": probabilities[None]}) == []


def test_threshold_is_the_opposite_class_mean() -> None:
    """By hand: mean probabilities near 0.7 and 0.8, with one wrong row in each class."""
    targets = np.array([[1]] * 6 + [[0]] * 6, dtype=np.uint8)
    probabilities = np.array([[0.8]] * 5 + [[0.2]] + [[0.1]] * 5 + [[0.71]])
    # 1 - p of rows without the label: (5 * 0.9 + 0.29) / 6 = 0.798; p of those with it: 0.7.
    issues = find_label_issues(targets, probabilities)
    assert [(issue.row, issue.has_label, issue.probability) for issue in issues] == [
        (5, True, 0.2),
        (11, False, 0.71),
    ]
    probabilities[5] = 0.21  # 0.79 is less than 0.798
    assert [issue.row for issue in find_label_issues(targets, probabilities)] == [11]


@pytest.mark.parametrize("constant", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_constant_probabilities_give_no_issues(constant: float) -> None:
    targets, _ = make_predictions(0)
    probabilities = np.full(targets.shape, constant)
    assert not judgeable_labels(targets, probabilities).any()
    assert find_label_issues(targets, probabilities) == []


@pytest.mark.parametrize("value", [0, 1])
def test_constant_labels_are_not_judged(value: int) -> None:
    targets, probabilities = make_predictions(0)
    targets[:, 1] = value
    assert judgeable_labels(targets, probabilities).tolist() == [True, False, True]
    assert find_label_issues(targets, probabilities) == []


@pytest.mark.parametrize(("positives", "judged"), [(4, False), (5, True)])
def test_judging_needs_five_positive_rows(positives: int, judged: bool) -> None:
    targets = np.zeros((40, 1), dtype=np.uint8)
    targets[:positives] = 1
    probabilities = 0.1 + 0.8 * targets
    probabilities[0] = 0.01
    assert judgeable_labels(targets, probabilities).tolist() == [judged]
    assert [issue.row for issue in find_label_issues(targets, probabilities)] == [0] * judged


def test_never_predicted_labels_are_not_judged() -> None:
    targets, probabilities = make_predictions(0)
    probabilities[:, 2] *= 0.01
    assert judgeable_labels(targets, probabilities).tolist() == [True, True, False]
    assert find_label_issues(targets, probabilities) == []


def test_single_label_table_is_judged() -> None:
    targets, probabilities = make_predictions(0)
    targets, probabilities, wrong = plant_errors(targets[:, :1], probabilities[:, :1], 0)
    assert entries(find_label_issues(targets, probabilities)) == wrong


def test_hard_rows_are_wrong_for_all_candidates() -> None:
    targets = np.array([[1, 0], [1, 0], [0, 0], [1, 1]], dtype=np.uint8)
    a = np.array([[[0.1, 0.1], [0.1, 0.1], [0.1, 0.9], [0.01, 0.9]]])
    b = np.array([[[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.9]]])
    hard = {row.row: row for row in find_hard_rows(targets, {"a": a, "b": b})}
    assert hard.keys() == {1, 2}  # one candidate is right about rows 0 and 3
    assert (hard[1].false_negatives, hard[1].false_positives) == ({0: 2}, {1: 1})
    assert (hard[2].false_negatives, hard[2].false_positives) == ({}, {1: 2})
    single = find_hard_rows(targets, {"a": a})
    assert [row.row for row in single] == [3, 2, 0, 1]  # the highest loss first


def test_loss_is_a_finite_cross_entropy() -> None:
    targets = np.array([[1, 0], [1, 0]], dtype=np.uint8)
    probabilities = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.5, 0.5], [1.0, 0.0]]])
    losses = row_losses(targets, probabilities)
    assert losses[0] == pytest.approx(np.log(2))
    assert losses[1] == pytest.approx(-np.log(1e-7) / 2)


def test_mean_probability_breaks_voting_ties() -> None:
    three = np.array([[[0.6]], [[0.6]], [[0.0]]])
    assert majority_vote(three).tolist() == [[1]]
    assert majority_vote(np.array([[[0.6]], [[0.1]]])).tolist() == [[0]]
    assert majority_vote(np.array([[[0.9]], [[0.4]]])).tolist() == [[1]]
    assert majority_vote(np.full((2, 1, 1), 0.5)).tolist() == [[0]]


def test_disagreements_are_ordered_by_spread() -> None:
    a = np.array([[[0.6, 0.1], [0.9, 0.1], [0.9, 0.1]]])
    b = np.array([[[0.4, 0.1], [0.8, 0.1], [0.1, 0.9]]])
    rows = find_disagreements({"a": a, "b": b})
    assert [(d.row, dict(d.predictions)) for d in rows] == [
        (2, {"a": (0,), "b": (1,)}),
        (0, {"a": (0,), "b": ()}),
    ]
    assert rows[0].spread == pytest.approx(1.6)


def test_single_candidate_has_no_disagreements() -> None:
    targets, probabilities = make_predictions(0)
    assert (
        find_disagreements({"a": np.stack([probabilities, 1 - probabilities, probabilities])}) == []
    )
    assert len(find_hard_rows(targets, {"a": 1 - probabilities[None]})) == len(targets)


def test_candidates_have_equal_weight() -> None:
    many, few = np.full((9, 1, 1), 0.9), np.full((1, 1, 1), 0.1)
    assert mean_probabilities({"many": many, "few": few})[0, 0] == pytest.approx(0.5)
