"""Thresholds: the best by brute force, and the rules that choose them."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toxbench.evaluation.definitions import ACCURACY, GLOBAL, HALF, PER_LABEL, RULES
from toxbench.evaluation.thresholds import (
    POSITIVES_NEEDED,
    best_accuracy_threshold,
    best_threshold,
    calibrate,
    choose_thresholds,
    f1_threshold,
    fit_calibration,
    positives_for_recall,
    recall_threshold,
)
from toxbench.records import Calibration

Entries = list[tuple[int, float]]
values = st.one_of(
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]), st.floats(0, 1, width=32)
)
entries = st.lists(st.tuples(st.integers(0, 1), values), min_size=1, max_size=14).filter(
    lambda pairs: any(target for target, _ in pairs)
)


def split_entries(pairs: Entries) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    targets, probabilities = zip(*pairs, strict=True)
    return np.array(targets, dtype=np.uint8), np.array(probabilities, dtype=np.float32)


def f1(pairs: Entries, threshold: float) -> Fraction:
    predictions = [value > threshold for _, value in pairs]
    hits = sum(target and hit for (target, _), hit in zip(pairs, predictions, strict=True))
    return Fraction(2 * hits, sum(predictions) + sum(target for target, _ in pairs))


def midpoints(pairs: Entries) -> list[float]:
    """Return the midpoints between neighbouring probabilities, with 0 as the lowest."""
    probabilities = sorted({0.0, *(value for _, value in pairs)})
    return [(low + high) / 2 for low, high in pairwise(probabilities)]


@settings(max_examples=120, deadline=None, database=None)
@given(entries)
@example([(1, 0.0)])
@example([(1, 0.0), (0, 1.0)])
@example([(1, 1.0)])
@example([(1, 0.3), (0, 0.3), (1, 0.3)])
def test_best_threshold_equals_brute_force(raw: Entries) -> None:
    targets, probabilities = split_entries(raw)
    pairs = list(zip(targets.tolist(), probabilities.tolist(), strict=True))
    threshold = best_threshold(targets, probabilities)
    candidates = [0.0, 1.0, *midpoints(pairs), *probabilities.tolist()]
    highest = max(f1(pairs, candidate) for candidate in candidates)
    assert f1(pairs, threshold) == highest
    best = [midpoint for midpoint in midpoints(pairs) if f1(pairs, midpoint) == highest]
    if best:
        assert threshold in best
        assert abs(threshold - 0.5) == min(abs(midpoint - 0.5) for midpoint in best)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(1, 0.9), (0, 0.1)], 0.5),
        ([(1, 0.9), (0, 0.5)], 0.7),
        ([(1, 0.4), (1, 0.2)], 0.1),
        # F1 is 2/3 at 0.7 (one of two found) and at 0.05 (two found, two too many).
        ([(1, 0.8), (0, 0.6), (0, 0.4), (1, 0.1)], 0.7),
        # F1 is 2/3 at 0.95 and at 0.55, which is nearer to 0.5.
        ([(1, 1.0), (0, 0.9), (0, 0.7), (1, 0.6), (0, 0.5)], 0.55),
    ],
)
def test_best_threshold_by_hand(pairs: Entries, expected: float) -> None:
    assert best_threshold(*split_entries(pairs)) == pytest.approx(expected, abs=1e-6)


def test_entry_order_is_irrelevant() -> None:
    draw = np.random.default_rng(3)
    targets = draw.integers(0, 2, 200).astype(np.uint8)
    probabilities = draw.integers(0, 50, 200).astype(np.float32) / 50
    order = draw.permutation(200)
    expected = best_threshold(targets, probabilities)
    assert best_threshold(targets[order], probabilities[order]) == expected


def make_validation(
    positives: list[int], rows: int = 60
) -> tuple[npt.NDArray[np.uint8], npt.NDArray]:
    """Return columns whose positives have probability 0.2 + 0.1 i and negatives 0.1 i."""
    targets = np.zeros((rows, len(positives)), dtype=np.uint8)
    probabilities = np.zeros((rows, len(positives)), dtype=np.float32)
    for i, count in enumerate(positives):
        targets[:count, i] = 1
        probabilities[:, i] = np.where(targets[:, i] == 1, 0.2 + 0.1 * i, 0.1 * i)
    return targets, probabilities


def test_label_threshold_needs_ten_positives() -> None:
    assert POSITIVES_NEEDED == 10
    targets, probabilities = make_validation([40, 10, 9, 0])
    rules = choose_thresholds(targets, probabilities)
    assert set(rules) == set(RULES)
    shared = f1_threshold(probabilities, fit_calibration(targets, probabilities))
    assert rules[HALF] == (0.5,) * 4
    assert rules[GLOBAL] == (shared,) * 4
    assert rules[PER_LABEL] == pytest.approx((0.1, 0.2, shared, shared))
    assert shared not in (pytest.approx(0.1), pytest.approx(0.2))


@pytest.mark.parametrize("rows", [10, 40, 400])
def test_accuracy_threshold_is_shrunk_to_half(rows: int) -> None:
    targets, probabilities = noisy_validation(rows)
    best = best_accuracy_threshold(targets, probabilities)
    expected = (rows * best + 40 * 0.5) / (rows + 40)
    assert choose_thresholds(targets, probabilities)[ACCURACY] == pytest.approx((expected,) * 3)


matrices = st.integers(1, 3).flatmap(
    lambda labels: st.lists(
        st.lists(st.tuples(st.integers(0, 1), values), min_size=labels, max_size=labels),
        min_size=1, max_size=6,
    )
)  # fmt: skip


@settings(max_examples=120, deadline=None, database=None)
@given(matrices)
@example([[(1, 0.0)]])
@example([[(0, 1.0)]])
@example([[(1, 0.3), (0, 0.3)]])
def test_accuracy_threshold_equals_brute_force(rows: list[Entries]) -> None:
    targets = np.array([[target for target, _ in row] for row in rows], dtype=np.uint8)
    probabilities = np.array([[value for _, value in row] for row in rows], dtype=np.float32)

    def accuracy(threshold: float) -> float:
        return float(((probabilities > threshold) == targets).all(axis=1).mean())

    points = sorted({0.0, 1.0, *probabilities.ravel().tolist()})
    candidates = [*points, *((low + high) / 2 for low, high in pairwise(points))]
    threshold = best_accuracy_threshold(targets, probabilities)
    assert 0 <= threshold <= 1
    assert accuracy(threshold) == max(map(accuracy, candidates))


@settings(max_examples=120, deadline=None, database=None)
@given(
    st.lists(st.floats(2**-9, 1 - 2**-9, width=32), min_size=1, max_size=14),
    st.floats(0.3, 3),
    st.floats(-2, 2),
)
def test_f1_threshold_maximizes_expected_f1(
    raw: list[float], temperature: float, shift: float
) -> None:
    calibration = Calibration(temperature=temperature, shift=shift)
    probabilities = np.array(raw, dtype=np.float32)
    calibrated = calibrate(probabilities, calibration)

    def expected_f1(threshold: float) -> float:
        predicted = probabilities > threshold
        return float(2 * calibrated[predicted].sum() / (predicted.sum() + calibrated.sum()))

    threshold = f1_threshold(probabilities, calibration)
    highest = max(expected_f1(np.nextafter(value, -1)) for value in probabilities.astype(float))
    assert expected_f1(threshold) == pytest.approx(highest, abs=1e-6)
    assert calibrate(np.array(threshold), calibration) == pytest.approx(highest / 2, abs=1e-6)


def test_rounding_barely_moves_thresholds() -> None:
    targets, probabilities = noisy_validation(40)
    rounded = (probabilities * (1 + 1e-6)).astype(np.float32)
    expected = choose_thresholds(targets, probabilities)
    for rule, thresholds in choose_thresholds(targets, rounded).items():
        assert thresholds == pytest.approx(expected[rule], abs=1e-5)


def noisy_validation(rows: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    draw = np.random.default_rng(1)
    targets = (draw.random((rows, 3)) < 0.3).astype(np.uint8)
    return targets, (0.3 * targets + 0.7 * draw.random((rows, 3))).astype(np.float32)


@pytest.mark.parametrize(
    "targets", [np.zeros((0, 3), dtype=np.uint8), np.zeros((5, 3), dtype=np.uint8)]
)
def test_only_half_without_validation_positives(targets: npt.NDArray[np.uint8]) -> None:
    rules = choose_thresholds(targets, np.zeros(targets.shape, dtype=np.float32))
    assert rules == {"0.5": (0.5, 0.5, 0.5)}


def test_adjacent_doubles_are_separated() -> None:
    low = 0.3
    probabilities = np.array([np.nextafter(low, 1), low])
    threshold = best_threshold(np.array([1, 0], np.uint8), probabilities)
    assert (probabilities > threshold).tolist() == [True, False]


# Recall


def simulated_recall(rng: np.random.Generator, positives: int, **promise: float) -> float:
    """Return the recall on new rows; a positive's probability is uniform, so it is 1 - threshold.

    Probabilities of negatives are uniform below 0.5.
    """
    targets = np.repeat(np.array([1, 0], dtype=np.uint8), positives)
    probabilities = rng.random(2 * positives) * np.where(targets == 1, 1, 0.5)
    return 1 - recall_threshold(targets, probabilities, **promise)


@pytest.mark.parametrize(("recall", "confidence"), [(0.9, 0.95), (0.8, 0.9), (0.5, 0.8)])
def test_recall_is_reached_as_often_as_promised(recall: float, confidence: float) -> None:
    rng = np.random.default_rng(4)
    draws = [simulated_recall(rng, 80, recall=recall, confidence=confidence) for _ in range(1000)]
    share = np.mean(np.array(draws) >= recall)
    assert confidence <= share < 1
    assert np.mean(draws) < recall + 0.15


@pytest.mark.parametrize(
    ("recall", "confidence", "needed"), [(0.9, 0.95, 29), (0.9, 0.9, 22), (0.5, 0.75, 2)]
)
def test_recall_needs_enough_positives(recall: float, confidence: float, needed: int) -> None:
    assert positives_for_recall(recall, confidence) == needed
    values = np.linspace(0.4, 0.9, needed)
    threshold = recall_threshold(np.ones(needed, dtype=np.uint8), values, recall, confidence)
    assert threshold == pytest.approx(0.2)
    assert recall ** (needed - 1) > 1 - confidence


def test_recall_threshold_is_between_neighbouring_probabilities() -> None:
    targets = np.array([1] * 29 + [0] * 3, dtype=np.uint8)
    probabilities = np.array([0.8] * 28 + [0.6] + [0.7, 0.5, 0.1])
    assert recall_threshold(targets, probabilities, 0.9, 0.95) == pytest.approx(0.55)
    targets[:] = 1
    assert recall_threshold(targets, probabilities, 0.9, 0.95) == pytest.approx(0.05)


def test_recall_of_zero_probabilities_is_possible() -> None:
    targets = np.ones(29, dtype=np.uint8)
    assert recall_threshold(targets, np.zeros(29), 0.9, 0.95) < 0
