"""Paired tests with known results, Holm's correction, and tiers."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toxbench.evaluation.bootstrap import BootstrapScores, SampleCounts, bootstrap
from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.power import ErrorModel
from toxbench.evaluation.row_counts import row_counts
from toxbench.evaluation.significance import (
    Difference,
    assign_tiers,
    compare_all,
    detectable_effect,
    holm,
    two_sided_p,
)

RESAMPLES = 999


def resample(
    skills: dict[str, float], rows: int = 200, seeds: int = 5
) -> dict[str, BootstrapScores]:
    rng = np.random.default_rng(0)
    targets = (rng.random((rows, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(np.uint8)
    predictions = ErrorModel().predict(targets, list(skills.values()), seeds, rng)
    return bootstrap(
        {
            name: SampleCounts(np.stack([row_counts(targets, p) for p in by_seed]))
            for name, by_seed in zip(skills, predictions, strict=True)
        },
        RESAMPLES,
    )


def compare(draws: dict[str, BootstrapScores], metric: str = "micro_f1") -> list[Difference]:
    means = {name: float(scores.observed[metric].mean()) for name, scores in draws.items()}
    return compare_all(draws, means, metric)


# Pairs


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("seeds", [1, 5])
def test_candidate_does_not_differ_from_itself(metric: str, seeds: int) -> None:
    (scores,) = resample({"a": 0.0}, seeds=seeds).values()
    (pair,) = compare({"a": scores, "b": scores}, metric)
    assert (pair.difference, pair.low, pair.high) == (0, 0, 0)
    assert (pair.p, pair.adjusted_p, pair.better, pair.detectable) == (1, 1, 0.5, 0)
    assert not pair.is_clear


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("seeds", [1, 5])
def test_large_difference_has_the_lowest_p(metric: str, seeds: int) -> None:
    (pair,) = compare(resample({"a": 1.5, "b": -0.5}, seeds=seeds), metric)
    assert pair.p == 1 / (RESAMPLES + 1)
    assert pair.better == 1
    assert pair.is_clear
    assert 0 < pair.low < pair.difference < pair.high
    assert pair.metric == metric


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_swapped_pair_is_the_mirror_image(metric: str, seeds: int) -> None:
    draws = resample({"a": 0.0, "b": 0.0}, rows=60)
    draws["b"] = resample({"a": 0.0, "b": 0.0}, rows=60, seeds=seeds)["b"]
    (pair,) = compare(draws, metric)
    (swapped,) = compare({"b": draws["b"], "a": draws["a"]}, metric)
    assert (pair.first, pair.second) == ("a", "b")
    assert (swapped.first, swapped.second) == ("b", "a")
    assert swapped.difference == -pair.difference
    assert (swapped.low, swapped.high) == (pytest.approx(-pair.high), pytest.approx(-pair.low))
    assert swapped.better == pytest.approx(1 - pair.better)
    assert swapped.p == pair.p
    assert swapped.detectable == pytest.approx(pair.detectable)
    assert 0 < pair.better < 1


def test_all_pairs_are_compared_and_corrected() -> None:
    draws = resample({"a": 0.4, "b": 0.1, "c": 0.0, "d": 0.0})
    pairs = compare(draws)
    assert [d.first + d.second for d in pairs] == ["ab", "ac", "ad", "bc", "bd", "cd"]
    assert [d.adjusted_p for d in pairs] == holm([d.p for d in pairs])
    (single,) = compare({"a": draws["a"], "b": draws["b"]})
    assert single.p == pairs[0].p
    assert single.adjusted_p == single.p
    assert compare({"a": draws["a"]}) == []


def test_clear_differences_use_the_corrected_p() -> None:
    pair = compare(resample({"a": 0.1, "b": 0.0}))[0]
    values = vars(pair)
    assert Difference(**(values | {"p": 0.9, "adjusted_p": 0.05})).is_clear
    assert not Difference(**(values | {"p": 0.01, "adjusted_p": 0.051})).is_clear


# p-values


def test_p_counts_extreme_draws() -> None:
    draws = np.array(
        [0.0, 1.0, 2.0, 3.0, 4.0]
    )  # the first and the last differ from the mean, 2, by 2
    assert two_sided_p(draws, 2.0) == 3 / 6
    assert two_sided_p(draws, -2.0) == 3 / 6
    assert two_sided_p(draws, 0.5) == 5 / 6
    assert two_sided_p(draws, 2.1) == 1 / 6
    assert two_sided_p(draws, 0.0) == 1


def test_p_of_normal_draws_is_analytic() -> None:
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
def test_holm_correction_by_hand(raw: list[float], adjusted: list[float]) -> None:
    assert holm(raw) == pytest.approx(adjusted)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_p_and_bonferroni(raw: list[float]) -> None:
    adjusted = holm(raw)
    pairs = sorted(zip(raw, adjusted, strict=True))
    assert all(
        p <= corrected <= min(1, len(raw) * p) * (1 + 1e-12)
        for p, corrected in pairs
        if len({*raw}) == len(raw)
    )
    assert all(p <= corrected <= 1 for p, corrected in pairs)
    assert all(lower[1] <= upper[1] for lower, upper in pairwise(pairs))
    assert min(adjusted) == min(1, len(raw) * min(raw))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=8, unique=True), st.randoms())
def test_holm_does_not_depend_on_order(raw: list[float], random: object) -> None:
    adjusted = dict(zip(raw, holm(raw), strict=True))
    assert holm(raw[::-1]) == [adjusted[p] for p in raw[::-1]]


# Tiers


def test_tier_ends_at_a_significant_difference() -> None:
    different = {("a", "c"), ("a", "d"), ("c", "e"), ("a", "e")}
    tiers = assign_tiers("abcde", lambda *pair: pair in different)
    assert tiers == {"a": 1, "b": 1, "c": 2, "d": 2, "e": 3}


def test_tiers_compare_only_with_the_first() -> None:
    """b and c do not differ, but a and c do: c starts a new tier."""
    assert assign_tiers("abc", lambda *pair: pair == ("a", "c"))["c"] == 2


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 7), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_tiers_are_numbered_without_gaps(count: int, different: set[tuple[int, int]]) -> None:
    names = [str(i) for i in range(count)]
    tiers = assign_tiers(names, lambda first, second: (int(first), int(second)) in different)
    assert list(tiers) == names
    numbers = list(tiers.values())
    assert numbers[:1] == [1] * bool(names)
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(numbers))


def test_equal_candidates_share_one_tier() -> None:
    assert assign_tiers("abc", lambda _first, _second: False) == {"a": 1, "b": 1, "c": 1}
    assert assign_tiers("abc", lambda _first, _second: True) == {"a": 1, "b": 2, "c": 3}
    assert assign_tiers("", lambda _first, _second: True) == {}


# Detectable differences


def test_detectable_effect_is_analytic() -> None:
    assert detectable_effect(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    assert detectable_effect(0.02) == pytest.approx(0.02 * detectable_effect(1.0))
    assert detectable_effect(1.0, factor=2.0) == pytest.approx(2 * 1.959964 + 0.841621, abs=1e-5)
    assert detectable_effect(0.0) == 0


def test_more_rows_detect_smaller_differences() -> None:
    few, many = (
        compare(resample({"a": 0.0, "b": 0.0}, rows=rows, seeds=1))[0] for rows in (100, 1600)
    )
    assert few.detectable / many.detectable == pytest.approx(4, rel=0.3)
