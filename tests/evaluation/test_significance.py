"""Comparisons: paired tests whose answers are known, Holm's correction, tiers."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toxbench.evaluation.bootstrap import BootstrapScores, SampleCounts, bootstrap
from toxbench.evaluation.power import ErrorModel
from toxbench.evaluation.row_counts import HEADLINES, row_counts
from toxbench.evaluation.significance import (
    Difference,
    compare_all,
    detectable,
    holm,
    tiers,
    two_sided_p,
)

RESAMPLES = 999


def draws_of(
    skills: dict[str, float], rows: int = 200, seeds: int = 5
) -> dict[str, BootstrapScores]:
    rng = np.random.default_rng(0)
    targets = (rng.random((rows, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(np.uint8)
    predictions = ErrorModel().predict(targets, list(skills.values()), seeds, rng)
    return bootstrap(
        {
            name: SampleCounts(np.stack([row_counts(targets, own) for own in seed]))
            for name, seed in zip(skills, predictions, strict=True)
        },
        RESAMPLES,
    )


def compare(draws: dict[str, BootstrapScores], metric: str = "micro_f1") -> list[Difference]:
    means = {name: float(own.observed[metric].mean()) for name, own in draws.items()}
    return compare_all(draws, means, metric)


# Pairs


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("seeds", [1, 5])
def test_a_candidate_is_equal_to_itself(metric: str, seeds: int) -> None:
    (own,) = draws_of({"a": 0.0}, seeds=seeds).values()
    (found,) = compare({"a": own, "b": own}, metric)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.p, found.adjusted_p, found.better, found.detectable) == (1, 1, 0.5, 0)
    assert not found.is_clear


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("seeds", [1, 5])
def test_what_is_far_better_has_the_lowest_p(metric: str, seeds: int) -> None:
    (found,) = compare(draws_of({"a": 1.5, "b": -0.5}, seeds=seeds), metric)
    assert found.p == 1 / (RESAMPLES + 1)
    assert found.better == 1
    assert found.is_clear
    assert 0 < found.low < found.difference < found.high
    assert found.metric == metric


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("other_seeds", [1, 3, 5])
def test_a_swapped_pair_says_the_same_the_other_way_round(metric: str, other_seeds: int) -> None:
    draws = draws_of({"a": 0.0, "b": 0.0}, rows=60)
    draws["b"] = draws_of({"a": 0.0, "b": 0.0}, rows=60, seeds=other_seeds)["b"]
    (one,) = compare(draws, metric)
    (other,) = compare({"b": draws["b"], "a": draws["a"]}, metric)
    assert (one.one, one.other, other.one, other.other) == ("a", "b", "b", "a")
    assert other.difference == -one.difference
    assert (other.low, other.high) == (pytest.approx(-one.high), pytest.approx(-one.low))
    assert other.better == pytest.approx(1 - one.better)
    assert other.p == one.p
    assert other.detectable == pytest.approx(one.detectable)
    assert 0 < one.better < 1


def test_every_pair_is_compared_once_and_corrected_for_all() -> None:
    draws = draws_of({"a": 0.4, "b": 0.1, "c": 0.0, "d": 0.0})
    found = compare(draws)
    assert [d.one + d.other for d in found] == ["ab", "ac", "ad", "bc", "bd", "cd"]
    assert [d.adjusted_p for d in found] == holm([d.p for d in found])
    alone = compare({"a": draws["a"], "b": draws["b"]})[0]
    assert alone.p == found[0].p
    assert alone.adjusted_p == alone.p
    assert compare({"a": draws["a"]}) == []


def test_a_difference_is_clear_by_the_corrected_p() -> None:
    pair = compare(draws_of({"a": 0.1, "b": 0.0}))[0]
    values = vars(pair)
    assert Difference(**(values | {"p": 0.9, "adjusted_p": 0.05})).is_clear
    assert not Difference(**(values | {"p": 0.01, "adjusted_p": 0.051})).is_clear


# p-values


def test_p_counts_the_draws_as_far_from_their_mean_as_the_difference_is_from_0() -> None:
    draws = np.array([0.0, 1.0, 2.0, 3.0, 4.0])  # as far from 2 as 2: the first and the last
    assert two_sided_p(draws, 2.0) == 3 / 6
    assert two_sided_p(draws, -2.0) == 3 / 6
    assert two_sided_p(draws, 0.5) == 5 / 6
    assert two_sided_p(draws, 2.1) == 1 / 6
    assert two_sided_p(draws, 0.0) == 1


def test_p_is_that_of_a_normal_difference() -> None:
    draws = np.random.default_rng(0).normal(1.5, 1, 40_000)
    assert two_sided_p(draws, 1.96) == pytest.approx(0.05, abs=0.004)


# Holm


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        # By hand: p times 4, 3, 2, 1 in order, never falling, at most 1.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([0.3], [0.3]),
        ([], []),
    ],
)
def test_holm_by_hand(raw: list[float], adjusted: list[float]) -> None:
    assert holm(raw) == pytest.approx(adjusted)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(raw: list[float]) -> None:
    adjusted = holm(raw)
    pairs = sorted(zip(raw, adjusted, strict=True))
    assert all(
        p <= own <= min(1, len(raw) * p) * (1 + 1e-12)
        for p, own in pairs
        if len({*raw}) == len(raw)
    )
    assert all(p <= own <= 1 for p, own in pairs)
    assert all(one[1] <= other[1] for one, other in pairwise(pairs))
    assert min(adjusted) == min(1, len(raw) * min(raw))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=8, unique=True), st.randoms())
def test_holm_goes_by_value_and_not_by_place(raw: list[float], random: object) -> None:
    adjusted = dict(zip(raw, holm(raw), strict=True))
    assert holm(raw[::-1]) == [adjusted[p] for p in raw[::-1]]


# Tiers


def test_tiers_end_where_the_first_of_them_can_be_told_apart() -> None:
    apart = {("a", "c"), ("a", "d"), ("c", "e"), ("a", "e")}
    found = tiers("abcde", lambda one, other: (one, other) in apart)
    assert found == {"a": 1, "b": 1, "c": 2, "d": 2, "e": 3}


def test_who_is_like_the_second_of_a_tier_is_not_in_it() -> None:
    """b and c cannot be told apart, a and c can: c begins a tier of its own."""
    assert tiers("abc", lambda one, other: (one, other) == ("a", "c"))["c"] == 2


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 7), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_tiers_are_numbered_without_gaps_from_the_best(
    count: int, apart: set[tuple[int, int]]
) -> None:
    names = [str(i) for i in range(count)]
    found = tiers(names, lambda one, other: (int(one), int(other)) in apart)
    assert list(found) == names
    numbers = list(found.values())
    assert numbers[:1] == [1] * bool(names)
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(numbers))


def test_all_alike_are_one_tier_and_all_apart_are_as_many_as_there_are() -> None:
    assert tiers("abc", lambda _one, _other: False) == {"a": 1, "b": 1, "c": 1}
    assert tiers("abc", lambda _one, _other: True) == {"a": 1, "b": 2, "c": 3}
    assert tiers("", lambda _one, _other: True) == {}


# What can be found


def test_the_detectable_difference_is_the_textbook_one() -> None:
    assert detectable(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    assert detectable(0.02) == pytest.approx(0.02 * detectable(1.0))
    assert detectable(1.0, stretch=2.0) == pytest.approx(2 * 1.959964 + 0.841621, abs=1e-5)
    assert detectable(0.0) == 0


def test_more_rows_make_smaller_differences_detectable() -> None:
    few, many = (
        compare(draws_of({"a": 0.0, "b": 0.0}, rows=rows, seeds=1))[0] for rows in (100, 1600)
    )
    assert few.detectable / many.detectable == pytest.approx(4, rel=0.3)
