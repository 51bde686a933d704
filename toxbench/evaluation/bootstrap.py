"""Standard errors and intervals of scores, gaps and differences, by resampling rows and seeds.

Rows are resampled with replacement, the same rows for every candidate and seed, so differences
are paired. The mean over S seeds therefore varies with the rows, including the variance of seed
times rows. The variance between whole seeds is added: S - 1 seeds are drawn, which makes its
estimate unbiased (Efron and Tibshirani 1993, section 6.5), and their deviations are shrunk by the
part that is due to the rows and already counted. A variance of few seeds is itself uncertain, so
the draws are widened to a Student's t distribution with the degrees of freedom of Satterthwaite
(1946, doi:10.2307/3002019).

Resampling rows and seeds together (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122)
counts the shared part three times: its intervals of paired differences are far too wide if the
candidates err on the same rows.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.row_counts import COUNTS, SCORES
from toxbench.util.arrays import Counts, Floats

RESAMPLES = 10_000
MAX_UNITS = 5_000  # a larger table is resampled in blocks of rows
_WEIGHTS_PER_CHUNK = 20_000_000

Key = TypeVar("Key", bound=Hashable)
Units = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SampleCounts:
    """Counts of one candidate's predictions per sampling unit (see `row_counts`).

    Attributes:
        test: of the test rows, float32 ``[seed, unit, count]``.
        train: of the same units' train rows, which exist if there are several folds.
        train_only: of the train rows that no fold tests, in units that contain only them.
    """

    test: Counts
    train: Counts | None = None
    train_only: Counts | None = None


@dataclass(frozen=True, eq=False)
class BootstrapScores:
    """Resampled scores of one candidate.

    Attributes:
        values: metric, or metric with the suffix ``_gap`` for train minus test -> scores of each
            seed on resampled rows, ``[resample, seed]``.
        observed: the same scores on the original rows, ``[seed]``.
        seed_weights: weight of each seed in each resample, ``[resample, seed]``.
    """

    values: Mapping[str, Floats]
    observed: Mapping[str, Floats]
    seed_weights: Floats

    def scores(self, metric: str) -> Floats:
        """Return mean scores over resampled rows and seeds, ``[resample]``."""
        values, observed = self.values[metric], self.observed[metric]
        within = float(values.var(axis=1, ddof=1).mean()) if len(observed) > 1 else 0.0
        draws = _draw_seeds(observed, self.seed_weights)
        seed_variance = _estimate_seed_variance(draws, observed, within)
        return _combine(self.fixed_seed_scores(metric), [seed_variance])

    def fixed_seed_scores(self, metric: str) -> Floats:
        """Return mean scores over resampled rows, with each seed counted once, ``[resample]``."""
        return np.asarray(self.values[metric].mean(axis=1))

    def paired(self, metric: str) -> "PairedScores":
        """Return the scores in the form that many comparisons can share."""
        rows, observed = self.fixed_seed_scores(metric), self.observed[metric]
        # C order, because a product of two other arrays copies both.
        deviations = np.ascontiguousarray(self.values[metric] - rows[:, None])
        return PairedScores(rows, deviations, _draw_seeds(observed, self.seed_weights), observed)


@dataclass(frozen=True, eq=False)
class PairedScores:
    """One candidate's resampled scores of one metric, prepared for comparisons.

    There are many more pairs than candidates: values that depend on one candidate are computed
    here once, and each pair costs a few operations on ``[resample]``.

    Attributes:
        fixed_seed_scores: mean over seeds, so only rows vary, ``[resample]``.
        seed_deviations: each seed's score minus that mean, ``[resample, seed]``.
        seed_draws: mean of drawn whole seeds minus the mean of all seeds, ``[resample]``.
        observed: scores on the original rows, ``[seed]``.
    """

    fixed_seed_scores: Floats
    seed_deviations: Floats
    seed_draws: Floats
    observed: Floats

    def difference(self, second: "PairedScores") -> Floats:
        """Return differences on the same rows and, if possible, the same seeds, ``[resample]``."""
        rows = self.fixed_seed_scores - second.fixed_seed_scores
        if len(self.observed) != len(second.observed):
            # Seeds cannot be paired: each candidate adds its variance, and rows stay paired.
            negated = replace(second.seed_variance, draws=-second.seed_variance.draws)
            return _combine(rows, [self.seed_variance, negated])
        # The variance of a difference, without computing the difference of every seed.
        covariance = _mean_covariance(self.seed_deviations, second.seed_deviations)
        within = self._within + second._within - 2 * covariance
        draws, observed = self.seed_draws - second.seed_draws, self.observed - second.observed
        return _combine(rows, [_estimate_seed_variance(draws, observed, within)])

    @cached_property
    def seed_variance(self) -> "SeedVariance":
        """The variance that whole seeds add to the resampled means."""
        return _estimate_seed_variance(self.seed_draws, self.observed, self._within)

    @cached_property
    def _within(self) -> float:
        return _mean_covariance(self.seed_deviations, self.seed_deviations)


@dataclass(frozen=True, eq=False)
class SeedVariance:
    """The variance that whole seeds add to the resampled means of one candidate.

    Attributes:
        draws: deviations from the mean, ``[resample]``.
        variance: of the mean score, estimated between seeds; it includes seed times rows.
        seeds: number of seeds.
    """

    draws: Floats
    variance: float
    seeds: int


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty of a mean score, by source.

    Attributes:
        low: lower end of the 95 % interval, over rows and seeds.
        high: upper end.
        rows: standard error due to the test rows.
        seeds: standard error due to the seeds; None for a single seed.
        folds: standard error due to the folds beyond their rows; None for a single fold.
        without_a_group: lowest and highest score when one group is left out; None if there are
            enough groups to resample them.
    """

    low: float
    high: float
    rows: float
    seeds: float | None = None
    folds: float | None = None
    without_a_group: tuple[float, float] | None = None


def sampling_units(groups: Units, seed: int = 0) -> Units:
    """Return the number of each row's sampling unit, counted from 0: its group.

    More than `MAX_UNITS` groups are distributed at random over that many blocks: sums over random
    blocks vary as sums over groups do, at a fraction of the cost.

    Args:
        groups: group number of each row, ``[row]``.
        seed: of the random blocks.
    """
    units: Units = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    count = int(units.max(initial=-1)) + 1
    if count <= MAX_UNITS:
        return units
    blocks = np.random.default_rng(seed).permutation(count) % MAX_UNITS
    return blocks[units]


def sum_by_unit(counts: Counts, units: Units) -> Counts:
    """Sum the rows of each unit: ``[seed, row, count]`` to ``[seed, unit, count]``."""
    size, (seeds, rows, kinds) = int(units.max(initial=-1)) + 1, counts.shape
    columns = counts.transpose(0, 2, 1).reshape(seeds * kinds, rows)
    sums = np.array([np.bincount(units, weights=c, minlength=size) for c in columns])
    return sums.astype(np.float32).reshape(seeds, kinds, size).transpose(0, 2, 1)


def bootstrap(
    samples: Mapping[Key, SampleCounts], resamples: int = RESAMPLES, seed: int = 0
) -> dict[Key, BootstrapScores]:
    """Score every candidate on the same resampled units.

    Args:
        samples: counts of each candidate; the units must be the same, the seeds may differ.
        resamples: number of resamples.
        seed: of the draws.
    """
    chunks: dict[Key, list[Mapping[str, Floats]]] = {key: [] for key in samples}
    tested = max((_unit_count(s.test) for s in samples.values()), default=0)
    train_only = max((_unit_count(s.train_only) for s in samples.values()), default=0)
    for tested_weights, train_weights in _weight_chunks(tested, train_only, resamples, seed):
        for key, sample in samples.items():
            chunks[key].append(_scores(sample, tested_weights, train_weights))
    seed_counts = {len(sample.test) for sample in samples.values()}
    seed_weights = {count: _draw_seed_weights(count, resamples, seed) for count in seed_counts}
    ones = [np.ones((1, units), dtype=np.float32) for units in (tested, train_only)]
    return {
        key: BootstrapScores(
            values={n: np.concatenate([scores[n] for scores in parts]) for n in parts[0]},
            observed={n: values[0] for n, values in _scores(samples[key], *ones).items()},
            seed_weights=seed_weights[len(samples[key].test)],
        )
        for key, parts in chunks.items()
    }


def interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled values."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def measure_uncertainty(
    draws: Floats,
    fixed_seed_draws: Floats,
    seed_scores: Floats,
    fold_scores: Floats | None = None,
    scores_without_group: Floats | None = None,
) -> Uncertainty:
    """Summarise resampled scores.

    Args:
        draws: over rows and seeds, ``[resample]``.
        fixed_seed_draws: over rows, with each seed counted once, ``[resample]``.
        seed_scores: observed, ``[seed]``.
        fold_scores: observed, ``[seed, fold]``; None for a score that folds do not have.
        scores_without_group: score without each group, ``[group]``.
    """
    low, high = interval(draws)
    rows, seeds = float(fixed_seed_draws.std()), len(seed_scores)
    folds = None
    if fold_scores is not None and fold_scores.shape[1] > 1:
        # Folds differ because of their rows, too; only the remainder is due to the folds.
        between = float(fold_scores.mean(axis=0).var(ddof=1)) / fold_scores.shape[1]
        folds = max(0.0, between - rows**2) ** 0.5
    return Uncertainty(
        low=low,
        high=high,
        rows=rows,
        seeds=float(seed_scores.std(ddof=1)) / seeds**0.5 if seeds > 1 else None,
        folds=folds,
        without_a_group=None
        if scores_without_group is None
        else (float(scores_without_group.min()), float(scores_without_group.max())),
    )


def t_factor(variance: float, seed_parts: Sequence[tuple[float, int]]) -> float:
    """Return the width of a 95 % interval relative to a normal one of the same variance.

    Args:
        variance: of the mean score, or of a difference.
        seed_parts: the parts of it that were estimated between seeds: each part's variance, above
            0, and its number of seeds, at least 2.
    """
    from scipy.special import ndtri, stdtrit  # lazy: a cached leaderboard is printed without it

    total = max(variance, sum(part for part, _ in seed_parts))
    freedom = total**2 / sum(part**2 / (seeds - 1) for part, seeds in seed_parts)
    return float(stdtrit(freedom, 0.975) / ndtri(0.975))


def _scores(sample: SampleCounts, tested: Counts, train_only: Counts) -> dict[str, Floats]:
    """Score weighted units: metric -> ``[resample, seed]``."""
    test = _weighted_sums(tested, sample.test)
    values = {name: SCORES[name](test) for name in HEADLINES}
    if sample.train is not None or sample.train_only is not None:
        train = np.zeros_like(test)
        train += 0 if sample.train is None else _weighted_sums(tested, sample.train)
        train += 0 if sample.train_only is None else _weighted_sums(train_only, sample.train_only)
        values |= {f"{name}_gap": SCORES[name](train) - values[name] for name in HEADLINES}
    return values


def _weighted_sums(weights: Counts, counts: Counts) -> Floats:
    """Weight ``[seed, unit, count]`` by ``[resample, unit]``: ``[resample, seed, count]``."""
    seeds, units, _ = counts.shape
    # Shapes are explicit, not -1: there are no train-only units if every row is tested.
    flat = counts.transpose(1, 0, 2).reshape(units, seeds * len(COUNTS))
    return (weights @ flat).reshape(len(weights), seeds, len(COUNTS)).astype(np.float64)


def _unit_count(counts: Counts | None) -> int:
    return 0 if counts is None else counts.shape[1]


def _weight_chunks(
    tested: int, train_only: int, resamples: int, seed: int
) -> Iterator[tuple[Counts, Counts]]:
    """Yield weights of the tested and the train-only units, some resamples at a time."""
    # Two streams: the draws of tested units do not depend on the train-only units.
    streams = [np.random.default_rng([seed, stream]) for stream in (0, 2)]
    size = max(1, _WEIGHTS_PER_CHUNK // max(1, tested + train_only))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        yield _draw_weights(tested, count, streams[0]), _draw_weights(train_only, count, streams[1])


def _draw_weights(units: int, resamples: int, rng: np.random.Generator) -> Counts:
    """Return how often each unit is drawn, ``[resample, unit]``."""
    if units == 0:
        return np.zeros((resamples, 0), dtype=np.float32)
    return _count_draws(rng.integers(0, units, size=(resamples, units)), units).astype(np.float32)


def _draw_seed_weights(seeds: int, resamples: int, seed: int) -> Floats:
    """Draw S - 1 out of S seeds; return each seed's weight in each resample."""
    if seeds == 1:
        return np.ones((resamples, 1))
    rng = np.random.default_rng([seed, 1])
    return _count_draws(rng.integers(0, seeds, size=(resamples, seeds - 1)), seeds) / (seeds - 1)


def _count_draws(draws: Units, kinds: int) -> Units:
    """Count how often each number below ``kinds`` is drawn, ``[resample, kind]``."""
    resamples = len(draws)
    flat = (draws + kinds * np.arange(resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=resamples * kinds).reshape(resamples, kinds)


def _draw_seeds(observed: Floats, seed_weights: Floats) -> Floats:
    """Return the mean of drawn seeds minus the mean of all seeds, ``[resample]``."""
    return np.asarray(seed_weights @ observed - observed.mean())


def _mean_covariance(first: Floats, second: Floats) -> float:
    """Return the covariance over seeds of centred ``[resample, seed]``, mean over resamples."""
    resamples, seeds = first.shape
    return float(np.einsum("rs,rs->", first, second) / (resamples * max(1, seeds - 1)))


def _estimate_seed_variance(draws: Floats, observed: Floats, within: float) -> SeedVariance:
    """Shrink the deviations of whole seeds by the part that is due to the rows.

    The observed variance between seeds is that of whole seeds plus that of seed times rows;
    resampled rows contain the latter twice. The difference of the two is therefore the variance
    of seed times rows, which the resampled means already contain.

    Args:
        draws: mean of drawn whole seeds minus the mean of all seeds, ``[resample]``.
        observed: scores on the original rows, ``[seed]``.
        within: variance between seeds on resampled rows, mean over resamples.
    """
    seeds = len(observed)
    between = float(observed.var(ddof=1)) if seeds > 1 else 0.0
    if between == 0:
        return SeedVariance(np.zeros(len(draws)), 0.0, seeds)
    seed_times_rows = max(0.0, within - between)
    shrinkage = (max(0.0, between - seed_times_rows) / between) ** 0.5
    return SeedVariance(shrinkage * draws, between / seeds, seeds)


def _combine(rows: Floats, parts: Sequence[SeedVariance]) -> Floats:
    """Add independent parts, and widen the sum because few seeds estimate their variances."""
    seed_parts = [(part.variance, part.seeds) for part in parts if part.variance > 0]
    if not seed_parts:
        return rows
    draws = rows + sum(part.draws for part in parts)
    factor = t_factor(float(draws.var()), seed_parts)
    return np.asarray(draws.mean() + factor * (draws - draws.mean()))
