"""Rows to look at: planted errors come first, clean or unlearnt labels give none."""

from collections.abc import Sequence

import numpy as np
import pytest

from toxbench.evaluation.label_errors import (
    LabelIssue,
    can_judge,
    disagreements,
    find_label_issues,
    majority,
    mean_probabilities,
    missed_by_all,
    row_losses,
)
from toxbench.util.arrays import Floats, Targets

SEEDS = range(5)


def learnt(seed: int, rows: int = 300) -> tuple[Targets, Floats]:
    """True labels of three shares, and probabilities that tell them apart with some noise."""
    draw = np.random.default_rng(seed)
    targets = (draw.random((rows, 3)) < [0.5, 0.2, 0.1]).astype(np.uint8)
    return targets, np.clip(0.1 + 0.8 * targets + draw.normal(0, 0.05, targets.shape), 0, 1)


def planted(
    targets: Targets, probabilities: Floats, seed: int
) -> tuple[Targets, Floats, set[tuple[int, int]]]:
    """Give wrong labels in four entries of each column, two each way, of which one is sure."""
    draw = np.random.default_rng(seed)
    given, probabilities = targets.copy(), probabilities.copy()
    for label in range(targets.shape[1]):
        for value in (0, 1):
            rows = draw.choice(np.flatnonzero(targets[:, label] == value), 2, replace=False)
            given[rows, label] = 1 - value
            probabilities[rows, label] = 0.98 if value else 0.02
    entries = np.argwhere(given != targets).tolist()
    return given, probabilities, {(row, label) for row, label in entries}


def entries(found: Sequence[LabelIssue]) -> set[tuple[int, int]]:
    return {(suspect.row, suspect.label) for suspect in found}


@pytest.mark.parametrize("seed", SEEDS)
def test_planted_label_errors_are_found_and_nothing_else(seed: int) -> None:
    given, probabilities, wrong = planted(*learnt(seed), seed)
    found = find_label_issues(given, probabilities)
    assert entries(found) == wrong
    assert all(suspect.given == given[suspect.row, suspect.label] for suspect in found)


@pytest.mark.parametrize("seed", SEEDS)
def test_planted_label_errors_come_first_where_others_are_suspect_too(seed: int) -> None:
    targets, probabilities = learnt(seed)
    hard = np.random.default_rng(seed).random(targets.shape) < 0.1
    probabilities[hard] = np.abs(targets[hard] - 0.9)  # the candidate is wrong there, and sure
    given, probabilities, wrong = planted(targets, probabilities, seed)
    found = find_label_issues(given, probabilities)
    assert len(found) > len(wrong)
    assert entries(found[: len(wrong)]) == wrong
    confidences = [suspect.self_confidence for suspect in found]
    assert confidences == sorted(confidences)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_suspect_where_nothing_is_wrong(seed: int) -> None:
    targets, probabilities = learnt(seed)
    assert find_label_issues(targets, probabilities) == []
    assert missed_by_all(targets, {"a": probabilities[None]}) == []


def test_the_threshold_is_the_mean_probability_of_the_other_side() -> None:
    """By hand: 0.7 where it is given, 0.9 where it is not, but for one row on each side."""
    targets = np.array([[1]] * 6 + [[0]] * 6, dtype=np.uint8)
    probabilities = np.array([[0.8]] * 5 + [[0.2]] + [[0.1]] * 5 + [[0.71]])
    # 1 - p of rows without the label: (5 * 0.9 + 0.29) / 6 = 0.798; p of those with it: 0.7.
    assert [(s.row, s.given, s.probability) for s in find_label_issues(targets, probabilities)] == [
        (5, True, 0.2),
        (11, False, 0.71),
    ]
    probabilities[5] = 0.21  # 0.79 is less than 0.798
    assert [suspect.row for suspect in find_label_issues(targets, probabilities)] == [11]


@pytest.mark.parametrize("constant", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_constant_probabilities_contradict_nobody(constant: float) -> None:
    targets, _ = learnt(0)
    probabilities = np.full(targets.shape, constant)
    assert not can_judge(targets, probabilities).any()
    assert find_label_issues(targets, probabilities) == []


@pytest.mark.parametrize("value", [0, 1])
def test_a_label_that_nobody_or_everybody_has_is_not_judged(value: int) -> None:
    targets, probabilities = learnt(0)
    targets[:, 1] = value
    assert can_judge(targets, probabilities).tolist() == [True, False, True]
    assert find_label_issues(targets, probabilities) == []


@pytest.mark.parametrize(("positives", "judged"), [(4, False), (5, True)])
def test_five_rows_with_a_label_are_enough_to_judge_it(positives: int, judged: bool) -> None:
    targets = np.zeros((40, 1), dtype=np.uint8)
    targets[:positives] = 1
    probabilities = 0.1 + 0.8 * targets
    probabilities[0] = 0.01
    assert can_judge(targets, probabilities).tolist() == [judged]
    assert [suspect.row for suspect in find_label_issues(targets, probabilities)] == [0] * judged


def test_a_label_that_is_never_predicted_is_not_judged() -> None:
    targets, probabilities = learnt(0)
    probabilities[:, 2] *= 0.01
    assert can_judge(targets, probabilities).tolist() == [True, True, False]
    assert find_label_issues(targets, probabilities) == []


def test_one_label_alone_is_enough() -> None:
    targets, probabilities = learnt(0)
    given, probabilities, wrong = planted(targets[:, :1], probabilities[:, :1], 0)
    assert entries(find_label_issues(given, probabilities)) == wrong


def test_rows_are_missed_by_all_only_if_every_candidate_has_a_label_wrong() -> None:
    targets = np.array([[1, 0], [1, 0], [0, 0], [1, 1]], dtype=np.uint8)
    one = np.array([[[0.1, 0.1], [0.1, 0.1], [0.1, 0.9], [0.01, 0.9]]])
    other = np.array([[[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.9]]])
    found = {m.row: m for m in missed_by_all(targets, {"one": one, "other": other})}
    assert found.keys() == {1, 2}  # row 0 and 3 are right in one of them
    assert (found[1].absent, found[1].added) == ({0: 2}, {1: 1})
    assert (found[2].absent, found[2].added) == ({}, {1: 2})
    alone = missed_by_all(targets, {"one": one})
    assert [missed.row for missed in alone] == [3, 2, 0, 1]  # the surest mistake first


def test_the_loss_is_the_mean_cross_entropy_and_always_finite() -> None:
    targets = np.array([[1, 0], [1, 0]], dtype=np.uint8)
    probabilities = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.5, 0.5], [1.0, 0.0]]])
    losses = row_losses(targets, probabilities)
    assert losses[0] == pytest.approx(np.log(2))
    assert losses[1] == pytest.approx(-np.log(1e-7) / 2)


def test_most_seeds_decide_and_the_mean_decides_between_equal_halves() -> None:
    three = np.array([[[0.6]], [[0.6]], [[0.0]]])
    assert majority(three).tolist() == [[1]]
    assert majority(np.array([[[0.6]], [[0.1]]])).tolist() == [[0]]
    assert majority(np.array([[[0.9]], [[0.4]]])).tolist() == [[1]]
    assert majority(np.full((2, 1, 1), 0.5)).tolist() == [[0]]


def test_disagreements_are_ordered_by_how_far_candidates_are_apart() -> None:
    one = np.array([[[0.6, 0.1], [0.9, 0.1], [0.9, 0.1]]])
    other = np.array([[[0.4, 0.1], [0.8, 0.1], [0.1, 0.9]]])
    found = disagreements({"one": one, "other": other})
    assert [(d.row, dict(d.said)) for d in found] == [
        (2, {"one": (0,), "other": (1,)}),
        (0, {"one": (0,), "other": ()}),
    ]
    assert found[0].spread == pytest.approx(1.6)


def test_one_candidate_agrees_with_itself() -> None:
    targets, probabilities = learnt(0)
    assert disagreements({"one": np.stack([probabilities, 1 - probabilities, probabilities])}) == []
    assert len(missed_by_all(targets, {"one": 1 - probabilities[None]})) == len(targets)


def test_every_candidate_counts_the_same_whatever_its_seeds() -> None:
    many, few = np.full((9, 1, 1), 0.9), np.full((1, 1, 1), 0.1)
    assert mean_probabilities({"many": many, "few": few})[0, 0] == pytest.approx(0.5)
