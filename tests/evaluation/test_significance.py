"""Paired tests with known results, Holm's correction, and tiers."""

from dataclasses import replace
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
    Outcome,
    Rules,
    Verdict,
    assign_tiers,
    best_shares,
    compare_all,
    detectable_effect,
    holm,
    rank_intervals,
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


def compare(
    draws: dict[str, BootstrapScores], metric: str = "micro_f1", rules: Rules | None = None
) -> list[Difference]:
    means = {name: float(scores.observed[metric].mean()) for name, scores in draws.items()}
    return compare_all(draws, means, metric, rules=rules)


def make_difference(value: float, width: float, p: float | None = 0.2) -> Difference:
    return Difference(
        first="a", second="b", metric="micro_f1", difference=value, low=value - width,
        high=value + width, better=0.5, equivalent=0.1, detectable=0.1, p=p, adjusted_p=p,
    )  # fmt: skip


CLEAR, NONE, SMALL = (
    make_difference(0.1, 0.05, p=0.001), make_difference(0.0, 0.05), make_difference(0.0, 0.01),
)  # fmt: skip


# Pairs


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("seeds", [1, 5])
def test_candidate_does_not_differ_from_itself(metric: str, seeds: int) -> None:
    (scores,) = resample({"a": 0.0}, seeds=seeds).values()
    (pair,) = compare({"a": scores, "b": scores}, metric)
    assert (pair.difference, pair.p, pair.adjusted_p) == (0, 1, 1)
    assert pair.low == -pair.high
    assert (pair.high == 0) is (seeds == 1)  # other seeds would give other scores
    assert pair.better == pytest.approx((1 - pair.equivalent) / 2)
    assert not pair.is_clear


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("seeds", [1, 5])
def test_large_difference_is_clear(metric: str, seeds: int) -> None:
    (pair,) = compare(resample({"a": 1.5, "b": -0.5}, seeds=seeds), metric)
    assert pair.p is not None
    assert pair.p < 1e-6
    assert pair.better > 1 - 1e-6
    assert pair.is_clear
    assert 0 < pair.low < pair.difference < pair.high
    assert pair.metric == metric


def test_difference_of_right_rows_has_the_error_of_theory() -> None:
    draws = resample({"a": 0.2, "b": 0.0}, seeds=1)
    (pair,) = compare(draws, "subset_accuracy")
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(np.uint8)
    both = ErrorModel().predict(targets, [0.2, 0.0], 1, rng)[:, 0]
    right = (both == targets).all(axis=2).astype(float)
    error = (right[0] - right[1]).std(ddof=1) / 200**0.5
    assert (pair.high - pair.low) / 2 == pytest.approx(1.972 * error, rel=0.07)


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
    assert swapped.better == pytest.approx(1 - pair.better - pair.equivalent)
    assert swapped.p == pytest.approx(pair.p)
    assert swapped.detectable == pytest.approx(pair.detectable)
    assert 0 < pair.better < 1


def test_all_pairs_are_compared_and_corrected() -> None:
    draws = resample({"a": 0.4, "b": 0.1, "c": 0.0, "d": 0.0})
    pairs = compare(draws)
    assert [d.first + d.second for d in pairs] == ["ab", "ac", "ad", "bc", "bd", "cd"]
    assert [d.adjusted_p for d in pairs] == holm([d.p for d in pairs if d.p is not None])
    (single,) = compare({"a": draws["a"], "b": draws["b"]})
    assert single.p == pytest.approx(pairs[0].p)
    assert single.adjusted_p == single.p
    assert compare({"a": draws["a"]}) == []


def test_constant_candidates_have_their_own_correction() -> None:
    draws = resample({"a": 0.4, "b": 0.1, "c": 0.0, "d": 0.0})
    alone = compare({name: draws[name] for name in "abc"})
    pairs = {d.first + d.second: d for d in compare(draws, rules=Rules(constant={"d"}))}
    for d in alone:
        assert pairs[d.first + d.second].adjusted_p == pytest.approx(d.adjusted_p)
    raw = [pairs[name].p or 0.0 for name in ("ad", "bd", "cd")]
    assert [pairs[name].adjusted_p for name in ("ad", "bd", "cd")] == holm(raw)


def test_untested_candidates_have_no_p() -> None:
    pairs = compare(resample({"a": 1.5, "b": -0.5, "c": 0.0}), rules=Rules(untested={"c"}))
    assert [(d.p is None, d.adjusted_p is None) for d in pairs] == [
        (False, False), (True, True), (True, True),
    ]  # fmt: skip
    assert [d.is_clear for d in pairs] == [True, False, False]


def test_clear_differences_are_significant_and_large() -> None:
    assert CLEAR.is_clear
    assert not make_difference(0.1, 0.05, p=0.051).is_clear
    assert not make_difference(0.015, 0.001, p=0.001).is_clear


def test_wider_rope_makes_more_equivalent() -> None:
    draws = resample({"a": 0.05, "b": 0.0}, rows=400)
    shares = [compare(draws, rules=Rules(rope=rope))[0].equivalent for rope in (0.0, 0.02, 0.2)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0)
    assert shares[-1] == pytest.approx(1, abs=1e-3)


# Verdicts


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ((CLEAR, CLEAR, CLEAR), Outcome.BETTER),
        ((CLEAR, make_difference(0.05, 0.06), CLEAR), Outcome.BETTER),
        ((CLEAR, make_difference(0.05, 0.06), make_difference(0.03, 0.04)), Outcome.UNDECIDED),
        ((CLEAR, make_difference(0.003, 0.03), make_difference(-0.02, 0.04)), Outcome.DEPENDS),
        ((NONE, NONE, make_difference(-0.1, 0.05, p=0.01)), Outcome.DEPENDS),
        ((make_difference(0.05, 0.06), CLEAR, CLEAR), Outcome.UNDECIDED),
        ((NONE, NONE, NONE), Outcome.UNDECIDED),
        ((SMALL, NONE), Outcome.UNDECIDED),
        ((SMALL, SMALL, SMALL), Outcome.EQUIVALENT),
        ((make_difference(-0.1, 0.05, p=0.01),), Outcome.WORSE),
        ((make_difference(0.1, 0.01, p=None), CLEAR), Outcome.UNTESTED),
    ],
)
def test_verdict_follows_its_rules(differences: tuple[Difference, ...], outcome: Outcome) -> None:
    verdict = Verdict("micro_f1", differences)
    assert verdict.outcome is outcome
    assert verdict.is_apart is (outcome in {Outcome.BETTER, Outcome.WORSE})


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


def test_tiers_are_peeled() -> None:
    """c differs from a, but d does not: d is in tier 1 although it ranks below c."""
    different = {("a", "c"), ("a", "e"), ("c", "e")}
    tiers = assign_tiers("abcde", lambda *pair: pair in different)
    assert tiers == {"a": 1, "b": 1, "c": 2, "d": 1, "e": 3}


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 7), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_tiers_are_numbered_without_gaps(count: int, different: set[tuple[int, int]]) -> None:
    names = [str(i) for i in range(count)]
    tiers = assign_tiers(names, lambda first, second: (int(first), int(second)) in different)
    assert sorted(tiers) == names
    assert {*tiers.values()} == set(range(1, len({*tiers.values()}) + 1))
    assert [tiers[n] == 1 for n in names] == [n == "0" or (0, int(n)) not in different
                                              for n in names]  # fmt: skip


def test_shares_of_the_best_by_hand() -> None:
    scores = np.array([[0.5, 0.9, 0.5, 0.9], [0.4, 0.9, 0.6, 0.8], [0.1, 0.2, 0.3, 0.1]])
    assert best_shares(scores).tolist() == [(1 + 0.5 + 0 + 1) / 4, (0 + 0.5 + 1 + 0) / 4, 0]


def test_significant_differences_bound_ranks() -> None:
    pairs = {"ab": (0.1, 0.2), "ac": (0.2, 0.01), "cb": (-0.01, 0.03), "ad": (-0.3, None)}
    differences = [
        replace(make_difference(value, 0.1, p), first=pair[0], second=pair[1])
        for pair, (value, p) in pairs.items()
    ]
    expected = {"a": (1, 3), "b": (1, 3), "c": (3, 4), "d": (1, 4)}
    assert rank_intervals("abcd", differences) == expected
    assert rank_intervals("a", ()) == {"a": (1, 1)}


def test_equal_candidates_share_one_tier() -> None:
    assert assign_tiers("abc", lambda _first, _second: False) == {"a": 1, "b": 1, "c": 1}
    assert assign_tiers("abc", lambda _first, _second: True) == {"a": 1, "b": 2, "c": 3}
    assert assign_tiers("", lambda _first, _second: True) == {}


# Detectable differences


def test_detectable_effect_is_analytic() -> None:
    sizes = detectable_effect(np.array([1.0, 0.02, 1.0, 0.0]), np.array([np.inf, np.inf, 4, 1]))
    normal = 1.959964 + 0.841621
    assert sizes == pytest.approx([normal, 0.02 * normal, 2.776445 + 0.841621, 0], abs=1e-5)


def test_more_rows_detect_smaller_differences() -> None:
    few, many = (
        compare(resample({"a": 0.0, "b": 0.0}, rows=rows, seeds=1))[0] for rows in (100, 1600)
    )
    assert few.detectable / many.detectable == pytest.approx(4, rel=0.3)
