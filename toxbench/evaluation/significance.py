"""Significance of differences: paired tests, Holm's correction, tiers, and verdicts."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np

from toxbench.evaluation.bootstrap import BootstrapScores, added_variance, variance_over_seeds
from toxbench.evaluation.definitions import ROPE
from toxbench.util.arrays import Floats

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """The difference of two candidates (first minus second) on the same test rows.

    The probabilities follow Benavoli et al. (2017, JMLR 18:77), with the posterior distribution
    of a difference that has no prior: Student's t around the observed one.

    Attributes:
        first: name of a candidate.
        second: name of the candidate that is subtracted.
        metric: column of the scores.
        difference: of the mean scores.
        low: lower end of the 95 % interval.
        high: upper end.
        better: probability that the first is better by more than the ROPE.
        equivalent: probability that the difference is within the ROPE.
        detectable: the difference that is detected with 80 % power at the 5 % level.
        p: two-sided p-value of this pair, without correction; None: it cannot be tested.
        adjusted_p: p-value with Holm's correction for the compared pairs.
        rope: half the width of the region of practical equivalence.
    """

    first: str
    second: str
    metric: str
    difference: float
    low: float
    high: float
    better: float
    equivalent: float
    detectable: float
    p: float | None
    adjusted_p: float | None
    rope: float = ROPE

    @property
    def is_significant(self) -> bool:
        """Whether it is significant at the 5 % level, corrected for all pairs."""
        return self.adjusted_p is not None and self.adjusted_p <= ALPHA

    @property
    def is_clear(self) -> bool:
        """Whether it is significant and as large as the ROPE."""
        return self.is_significant and abs(self.difference) >= self.rope

    @property
    def is_equivalent(self) -> bool:
        """Whether the 95 % interval is within the region of practical equivalence."""
        return -self.rope <= self.low and self.high <= self.rope


@dataclass(frozen=True)
class Rules:
    """How pairs are tested.

    Attributes:
        rope: half the width of the region of practical equivalence.
        untested: candidates without p-values, because the variance of their seeds is unknown.
        constant: candidates with constant predictions. Holm's correction for the pairs with one of
            them is separate, so that they do not weaken the comparison of the others.
    """

    rope: float = ROPE
    untested: Set[str] = frozenset()
    constant: Set[str] = frozenset()


def compare_all(
    draws: Mapping[str, BootstrapScores],
    means: Mapping[str, float],
    metric: str,
    column: str | None = None,
    rules: Rules | None = None,
) -> list[Difference]:
    """Compare every pair on one metric, in the order of ``draws``.

    Args:
        draws: candidate -> resampled scores, from the same resamples for all candidates.
        means: candidate -> mean score over its seeds.
        metric: of the resampled scores.
        column: of the leaderboard, which names the differences; by default the metric.
        rules: of the tests.
    """
    pairs = list(combinations(draws, 2))
    if not pairs:
        return []
    rules = rules or Rules()
    chosen = np.triu_indices(len(draws), k=1)  # in the order of the pairs
    errors, degrees = (a[chosen] for a in pair_errors(list(draws.values()), metric))
    difference = np.array([means[first] - means[second] for first, second in pairs])
    *statistics, p = _statistics(difference, errors, degrees, rules.rope)
    p_values = _adjusted(p, pairs, rules)
    numbers = zip(*(values.tolist() for values in statistics), strict=True)
    return [
        Difference(
            first, second, column or metric, d, low, high, above, within, size, *p, rules.rope
        )
        for (first, second), (d, low, high, above, within, size), p in zip(
            pairs, numbers, p_values, strict=True
        )
    ]


def _statistics(
    difference: Floats, error: Floats, degrees: Floats, rope: float
) -> tuple[Floats, ...]:
    """Return the numbers of `Difference` in their order, up to p, ``[pair]`` each."""
    from scipy.special import stdtr, stdtrit  # lazy: not every command compares candidates

    width = stdtrit(degrees, 1 - ALPHA / 2) * error
    scale = np.maximum(error, 1e-12)  # it is 0 if candidates differ on no row
    p = 2 * stdtr(degrees, -np.abs(difference) / scale)
    above = stdtr(degrees, (difference - rope) / scale)
    not_below = stdtr(degrees, (difference + rope) / scale)
    size = detectable_effect(error, degrees)
    return difference, difference - width, difference + width, above, not_below - above, size, p


def pair_errors(draws: Sequence[BootstrapScores], metric: str) -> tuple[Floats, Floats]:
    """Return the standard errors of the differences of all pairs, and their degrees of freedom.

    Rows are paired. Seeds are not: two candidates share nothing but the number of a seed, and
    twice as many seeds estimate the variance. The train rows of folds overlap, so the variance
    between folds does not show all of the variance between training sets: the part that is missing
    is added (Nadeau and Bengio 2003, doi:10.1023/A:1024068626366).

    Returns:
        two arrays ``[candidate, candidate]``.
    """
    rows = np.stack([d.fixed_seed_scores(metric) for d in draws])
    by_rows = _variances(rows, ddof=0)
    seeds = np.array([len(d.observed[metric]) for d in draws])
    between = np.array([variance_over_seeds(d.observed[metric]) for d in draws])
    within = np.array([variance_over_seeds(d.values[metric]) for d in draws])
    added = added_variance(between, within) / seeds
    folds = np.stack([d.folds[metric].mean(axis=0) for d in draws if metric in d.folds] or [[0.0]])
    fold_count = folds.shape[1]
    by_training = draws[0].fold_ratio * _variances(folds, ddof=1) if fold_count > 1 else 0 * by_rows
    variance = by_rows + added[:, None] + added + by_training
    estimated, degrees = between / seeds, np.maximum(1, seeds - 1)
    parts = [
        (by_rows, np.array(draws[0].effective_units - 1)),
        (estimated[:, None], degrees[:, None]),
        (estimated, degrees),
        (by_training, np.array(max(1, fold_count - 1))),
    ]
    return np.sqrt(variance), degrees_of_freedom(variance, parts)


def _variances(values: Floats, ddof: int) -> Floats:
    """Return the variances of the differences of all pairs of ``[candidate, draw]``."""
    covariances = np.cov(values, ddof=ddof).reshape(len(values), -1)
    variances = np.diag(covariances)
    return np.maximum(0.0, variances[:, None] + variances - 2 * covariances)  # never below 0


def degrees_of_freedom(variance: Floats, parts: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Return the degrees of freedom of Satterthwaite (1946, doi:10.2307/3002019).

    Args:
        variance: of a difference, of any shape.
        parts: estimates and their degrees of freedom: of the variance due to the rows, then of
            the others.

    Returns:
        as ``variance``; infinite where it is 0.
    """
    total = np.maximum(variance, sum(part for part, _ in parts[1:]))
    squares = sum(part**2 / degrees for part, degrees in parts)
    infinite = np.full_like(total, np.inf)
    return np.asarray(np.divide(total**2, squares, out=infinite, where=squares > 0))


def detectable_effect(error: Floats, degrees: Floats) -> Floats:
    """Return the difference that a two-sided test at level `ALPHA` detects with power `POWER`.

    Args:
        error: standard error of the difference.
        degrees: degrees of freedom of its estimate.
    """
    from scipy.special import ndtri, stdtrit

    return np.asarray(error * (stdtrit(degrees, 1 - ALPHA / 2) + ndtri(POWER)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests (Holm 1979), in the order of the input."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1, p[order] * np.arange(len(p), 0, -1)))
    return list(map(float, adjusted))


def assign_tiers(ranked: Sequence[str], differ: Callable[[str, str], bool]) -> dict[str, int]:
    """Number the tiers from 1: the best candidate and all that do not differ from it.

    The next tier is that of the remaining candidates, in the same way.

    Args:
        ranked: candidates, best first.
        differ: whether the difference of two candidates is clear.
    """
    tiers: dict[str, int] = {}
    remaining, tier = list(ranked), 0
    while remaining:
        best, *others = remaining
        tier += 1
        remaining = [name for name in others if differ(best, name)]
        tiers |= dict.fromkeys((name for name in (best, *others) if name not in remaining), tier)
    return tiers


def best_shares(scores: Floats) -> Floats:
    """Return how often each candidate is the best, ``[candidate]``; equal ones share it.

    Args:
        scores: of the same resamples, ``[candidate, resample]``; higher is better.
    """
    is_best = scores == scores.max(axis=0)
    return np.asarray((is_best / is_best.sum(axis=0)).mean(axis=1))


def rank_intervals(
    names: Sequence[str], differences: Iterable[Difference]
) -> dict[str, tuple[int, int]]:
    """Return the lowest and highest rank of each candidate, from 1: with 95 % confidence for all.

    The candidates that are significantly better or worse bound a rank (Mogstad et al. 2024,
    doi:10.1093/restud/rdad006). Percentiles of resampled ranks are too narrow if candidates are
    nearly equal.

    Args:
        names: of the candidates that have a rank.
        differences: of all pairs of them.
    """
    low, high = dict.fromkeys(names, 1), dict.fromkeys(names, len(names))
    for d in differences:
        if d.is_significant:
            better, worse = (d.first, d.second) if d.difference > 0 else (d.second, d.first)
            high[better] -= 1
            low[worse] += 1
    return {name: (low[name], high[name]) for name in names}


def _adjusted(
    p_values: Floats, pairs: Sequence[tuple[str, str]], rules: Rules
) -> list[tuple[float | None, float | None]]:
    """Return p-values and corrected ones; None for untested candidates."""
    results: list[tuple[float | None, float | None]] = [(None, None)] * len(pairs)
    families: dict[bool, list[int]] = {True: [], False: []}
    for number, (first, second) in enumerate(pairs):
        if first not in rules.untested and second not in rules.untested:
            families[first in rules.constant or second in rules.constant].append(number)
    for family in families.values():
        raw = p_values[family].tolist()
        for number, p in zip(family, zip(raw, holm(raw), strict=True), strict=True):
            results[number] = p
    return results


class Outcome(StrEnum):
    """What can be concluded about two candidates."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    DEPENDS = "depends on the threshold"
    UNTESTED = "one seed"


@dataclass(frozen=True)
class Verdict:
    """The comparison of two candidates in one headline score.

    Attributes:
        metric: the headline score.
        differences: in the headline score at the thresholds of the leaderboard, at 0.5 and at tuned
            thresholds, and in micro average precision; those that could be measured.
    """

    metric: str
    differences: tuple[Difference, ...]

    @property
    def main(self) -> Difference:
        """The difference at the thresholds of the leaderboard."""
        return self.differences[0]

    @property
    def outcome(self) -> Outcome:
        """The outcome, by these rules in this order.

        One seed: a p-value is missing. Equivalent: all intervals are within the ROPE. Undecided: no
        difference is clear. Depends on the threshold: one is clear, and another is smaller than
        the ROPE or has the other sign. Better or worse: the main one and another are clear (or the
        main one, if there is no other). Else undecided.
        """
        clear = [d for d in self.differences if d.is_clear]
        if self.main.p is None:
            return Outcome.UNTESTED
        if all(d.is_equivalent for d in self.differences):
            return Outcome.EQUIVALENT
        if not clear:
            return Outcome.UNDECIDED
        sign = 1 if clear[0].difference > 0 else -1
        if any(sign * d.difference < d.rope for d in self.differences):
            return Outcome.DEPENDS
        if not self.main.is_clear or len(clear) < min(2, len(self.differences)):
            return Outcome.UNDECIDED
        return Outcome.BETTER if sign > 0 else Outcome.WORSE

    @property
    def is_apart(self) -> bool:
        """Whether one of the two candidates is better."""
        return self.outcome in {Outcome.BETTER, Outcome.WORSE}
