"""Resampling rows, and what seeds add: how far a score, a gap or a difference may be off.

Rows are resampled with replacement, the same for every candidate and seed, so differences are
paired. A mean over S seeds then varies as the rows and what each seed makes of them do. What whole
seeds differ by is added: S - 1 of them are drawn, which makes their variance unbiased (Efron and
Tibshirani 1993, section 6.5), and their deviations are shrunk by the part that is owed to the rows
and already counted. A variance of few seeds is itself uncertain, so the draws are spread as
Student's t is, with the degrees of freedom of Satterthwaite (1946, doi:10.2307/3002019).

Drawing rows and seeds at once (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122) counts
the common part three times: its intervals of paired differences are far too wide where the
candidates err on the same rows.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.row_counts import COUNTS, HEADLINES, SCORES
from toxbench.util.arrays import Counts, Floats, Probabilities, Targets

RESAMPLES = 10_000
MOST_UNITS = 5_000  # a larger table is resampled in blocks of rows
_WEIGHTS_AT_ONCE = 20_000_000

Key = TypeVar("Key", bound=Hashable)
Units = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SampleCounts:
    """What one candidate's predictions count to, in each seed.

    Attributes:
        test: float32 ``[seed, unit, count]``, of test rows.
        train: the same units' train rows; they have some where folds take turns.
        train_elsewhere: train rows that are never tested, in units of their own.
    """

    test: Counts
    train: Counts | None = None
    train_elsewhere: Counts | None = None


@dataclass(frozen=True, eq=False)
class BootstrapScores:
    """Resampled scores of one candidate.

    Attributes:
        values: metric, or metric with ``_gap`` behind it for train minus test -> scores of each
            seed on resampled rows, ``[resample, seed]``.
        observed: the same on the rows as they are, ``[seed]``.
        shares: of each seed in each resample, ``[resample, seed]``.
    """

    values: Mapping[str, Floats]
    observed: Mapping[str, Floats]
    shares: Floats

    def scores(self, metric: str) -> Floats:
        """Return the mean score over resampled rows and seeds, ``[resample]``."""
        return _with_seeds(self.values[metric], self.observed[metric], self.shares)

    def rows_alone(self, metric: str) -> Floats:
        """Return the mean score with every seed once, so that only rows vary, ``[resample]``."""
        return np.asarray(self.values[metric].mean(axis=1))

    def minus(self, other: "BootstrapScores", metric: str) -> Floats:
        """Return resampled differences of the same rows and, if possible, seeds, ``[resample]``."""
        return self.side(metric).minus(other.side(metric))

    def side(self, metric: str) -> "PairedScores":
        """Take the scores apart for comparisons with many others."""
        rows, observed = self.rows_alone(metric), self.observed[metric]
        apart = self.values[metric] - rows[:, None]
        return PairedScores(rows, apart, _drawn(observed, self.shares), observed)


@dataclass(frozen=True, eq=False)
class PairedScores:
    """One candidate's resampled scores, in parts that are subtracted faster than scores.

    Candidates are compared in pairs, of which there are many more: what one side can compute once
    is here, and a pair costs a few operations on ``[resample]``.

    Attributes:
        rows: mean over seeds, so that only rows vary, ``[resample]``.
        apart: what each seed is above that mean, ``[resample, seed]``.
        drawn: what a draw of whole seeds is above all of them, ``[resample]``.
        observed: scores on the rows as they are, ``[seed]``.
    """

    rows: Floats
    apart: Floats
    drawn: Floats
    observed: Floats

    def minus(self, other: "PairedScores") -> Floats:
        """Return resampled differences of the same rows and, if possible, seeds, ``[resample]``."""
        rows = self.rows - other.rows
        if len(self.observed) != len(other.observed):
            # No pairs of seeds: each side adds its own, and the rows stay paired.
            theirs = other.seed_part
            return _spread(rows, [self.seed_part, replace(theirs, draws=-theirs.draws)])
        # The variance of a difference, without computing the difference of every seed.
        within = self._within + other._within - 2 * _covariance(self.apart, other.apart)
        drawn, observed = self.drawn - other.drawn, self.observed - other.observed
        return _spread(rows, [_seed_part(drawn, observed, within)])

    @cached_property
    def seed_part(self) -> "SeedVariance":
        """What whole seeds add to the resampled means."""
        return _seed_part(self.drawn, self.observed, self._within)

    @cached_property
    def _within(self) -> float:
        return _covariance(self.apart, self.apart)


@dataclass(frozen=True, eq=False)
class SeedVariance:
    """What whole seeds add to the resampled means of one candidate.

    Attributes:
        draws: around 0, ``[resample]``.
        variance: of the mean score, as estimated between seeds: what they make of the rows, too.
        seeds: how many there are.
    """

    draws: Floats
    variance: float
    seeds: int


def _with_seeds(values: Floats, observed: Floats, shares: Floats) -> Floats:
    """Add to resampled means what whole seeds differ by."""
    rows: Floats = np.asarray(values.mean(axis=1))
    within = float(values.var(axis=1, ddof=1).mean()) if len(observed) > 1 else 0.0
    return _spread(rows, [_seed_part(_drawn(observed, shares), observed, within)])


def _drawn(observed: Floats, shares: Floats) -> Floats:
    return np.asarray(shares @ observed - observed.mean())


def _covariance(one: Floats, other: Floats) -> float:
    """Return the covariance over seeds of what is centred there, mean over resamples."""
    resamples, seeds = one.shape
    return float(np.vdot(one, other) / (resamples * max(1, seeds - 1)))


def _seed_part(drawn: Floats, observed: Floats, within: float) -> SeedVariance:
    """Shrink the deviations of seeds by what is owed to the rows.

    The observed variance between seeds is that of whole seeds plus that of seed times rows; on
    resampled rows the latter is there twice. So their difference is the variance of seed times
    rows, which the resampled means have already.

    Args:
        drawn: what a draw of whole seeds is above all of them, ``[resample]``.
        observed: on the rows as they are, ``[seed]``.
        within: variance between seeds on resampled rows, mean over resamples.
    """
    seeds = len(observed)
    between = float(observed.var(ddof=1)) if seeds > 1 else 0.0
    if between == 0:
        return SeedVariance(np.zeros(len(drawn)), 0.0, seeds)
    with_rows = max(0.0, within - between)
    shrink = (max(0.0, between - with_rows) / between) ** 0.5
    return SeedVariance(shrink * drawn, between / seeds, seeds)


def _spread(rows: Floats, parts: Sequence[SeedVariance]) -> Floats:
    """Add up independent parts, as wide as variances of few seeds demand."""
    from_seeds = [(part.variance, part.seeds) for part in parts if part.variance > 0]
    if not from_seeds:
        return rows
    draws = rows + sum(part.draws for part in parts)
    stretch = t_stretch(float(draws.var()), from_seeds)
    return np.asarray(draws.mean() + stretch * (draws - draws.mean()))


def t_stretch(variance: float, from_seeds: Sequence[tuple[float, int]]) -> float:
    """Return how much wider than a normal interval one must be whose variance rests on few seeds.

    Args:
        variance: of the mean score, or of a difference.
        from_seeds: each part of it that was estimated between seeds, above 0, and how many seeds
            those were, at least 2.
    """
    from scipy.special import ndtri, stdtrit  # a kept leaderboard is printed without

    whole = max(variance, sum(part for part, _ in from_seeds))
    freedom = whole**2 / sum(part**2 / (seeds - 1) for part, seeds in from_seeds)
    return float(stdtrit(freedom, 0.975) / ndtri(0.975))


def sampling_units(groups: Units, seed: int = 0) -> Units:
    """Return what each row is resampled with, as numbers from 0: its group.

    More than `MOST_UNITS` groups are dealt at random to that many blocks of them: sums over random
    blocks vary as sums over groups do, at a fraction of the cost.

    Args:
        groups: a number for each row, ``[row]``.
        seed: of the dealing.
    """
    numbers: Units = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    count = int(numbers.max(initial=-1)) + 1
    if count <= MOST_UNITS:
        return numbers
    places = np.random.default_rng(seed).permutation(count) % MOST_UNITS
    return places[numbers]


def sum_by_unit(counts: Counts, units: Units) -> Counts:
    """Add up the rows of each unit: ``[seed, row, count]`` to ``[seed, unit, count]``."""
    size, (seeds, rows, kinds) = int(units.max(initial=-1)) + 1, counts.shape
    columns = counts.transpose(0, 2, 1).reshape(seeds * kinds, rows)
    summed = np.array([np.bincount(units, weights=c, minlength=size) for c in columns])
    return summed.astype(np.float32).reshape(seeds, kinds, size).transpose(0, 2, 1)


def bootstrap(
    evidence: Mapping[Key, SampleCounts], resamples: int = RESAMPLES, seed: int = 0
) -> dict[Key, BootstrapScores]:
    """Score every resample of every candidate; all have the same units.

    Args:
        evidence: of each candidate; they may differ in seeds.
        resamples: how many.
        seed: of the draws.
    """
    parts: dict[Key, list[Mapping[str, Floats]]] = {key: [] for key in evidence}
    elsewhere = max((_units(e.train_elsewhere) for e in evidence.values()), default=0)
    tested = max((_units(e.test) for e in evidence.values()), default=0)
    for test_weights, other_weights in _weights(tested, elsewhere, resamples, seed):
        for key, own in evidence.items():
            parts[key].append(_scores(own, test_weights, other_weights))
    shares = {n: _seed_shares(n, resamples, seed) for n in {len(e.test) for e in evidence.values()}}
    once = [np.ones((1, units), dtype=np.float32) for units in (tested, elsewhere)]
    return {
        key: BootstrapScores(
            values={n: np.concatenate([p[n] for p in pieces]) for n in pieces[0]},
            observed={n: values[0] for n, values in _scores(evidence[key], *once).items()},
            shares=shares[len(evidence[key].test)],
        )
        for key, pieces in parts.items()
    }


def _scores(own: SampleCounts, tested: Counts, others: Counts) -> dict[str, Floats]:
    """Score weighted rows: metric -> ``[resample, seed]``."""
    test = _sums(tested, own.test)
    values = {name: SCORES[name](test) for name in HEADLINES}
    if own.train is not None or own.train_elsewhere is not None:
        train = np.zeros_like(test)
        train += 0 if own.train is None else _sums(tested, own.train)
        train += 0 if own.train_elsewhere is None else _sums(others, own.train_elsewhere)
        values |= {f"{name}_gap": SCORES[name](train) - values[name] for name in HEADLINES}
    return values


def _sums(weights: Counts, counts: Counts) -> Floats:
    """Weight ``[seed, unit, count]`` by ``[resample, unit]``: ``[resample, seed, count]``."""
    seeds, units, _ = counts.shape
    # No -1 in the shapes: there may be no unit, as where every row is tested.
    flat = counts.transpose(1, 0, 2).reshape(units, seeds * len(COUNTS))
    return (weights @ flat).reshape(len(weights), seeds, len(COUNTS)).astype(np.float64)


def _units(counts: Counts | None) -> int:
    return 0 if counts is None else counts.shape[1]


def _weights(
    tested: int, elsewhere: int, resamples: int, seed: int
) -> Iterator[tuple[Counts, Counts]]:
    """Yield how often each unit is in some resamples, tested units and others."""
    # Streams of their own: what is tested is drawn alike, whatever was trained on.
    streams = [np.random.default_rng([seed, stream]) for stream in (0, 2)]
    size = max(1, _WEIGHTS_AT_ONCE // max(1, tested + elsewhere))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        yield _times(tested, count, streams[0]), _times(elsewhere, count, streams[1])


def _times(units: int, resamples: int, rng: np.random.Generator) -> Counts:
    if units == 0:
        return np.zeros((resamples, 0), dtype=np.float32)
    drawn = rng.integers(0, units, size=(resamples, units))
    flat = (drawn + units * np.arange(resamples)[:, None]).ravel()
    times = np.bincount(flat, minlength=resamples * units).reshape(resamples, units)
    return times.astype(np.float32)


def _seed_shares(seeds: int, resamples: int, seed: int) -> Floats:
    """Return each seed's share of each resample, ``[resample, seed]``: S - 1 draws out of S."""
    if seeds == 1:
        return np.ones((resamples, 1))
    rng = np.random.default_rng([seed, 1])
    drawn = rng.integers(0, seeds, size=(resamples, seeds - 1))
    flat = (drawn + seeds * np.arange(resamples)[:, None]).ravel()
    times = np.bincount(flat, minlength=resamples * seeds).reshape(resamples, seeds)
    return times / (seeds - 1)


def interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled values."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


_BLOCKS = 20


@dataclass(frozen=True)
class Uncertainty:
    """How far a mean score may be off, and why.

    Attributes:
        low: lower end of the 95 % interval, over rows and seeds.
        high: upper end.
        rows: standard error that the test rows cause.
        seeds: standard error that the seeds cause; None for a single one.
        folds: standard error that the folds cause beyond their rows; None for a single one.
        without_a_group: lowest and highest score when one group is left out; None where there are
            groups enough to resample them.
    """

    low: float
    high: float
    rows: float
    seeds: float | None = None
    folds: float | None = None
    without_a_group: tuple[float, float] | None = None


def measure_uncertainty(
    draws: Floats,
    rows_alone: Floats,
    by_seed: Floats,
    by_fold: Floats | None = None,
    without_group: Floats | None = None,
) -> Uncertainty:
    """Summarise resampled scores.

    Args:
        draws: over rows and seeds, ``[resample]``.
        rows_alone: over rows with every seed once, ``[resample]``.
        by_seed: observed, ``[seed]``.
        by_fold: observed, ``[seed, fold]``; None where the score is none of single folds.
        without_group: score without each group, ``[group]``.
    """
    low, high = interval(draws)
    rows = float(rows_alone.std())
    folds = None
    if by_fold is not None and by_fold.shape[1] > 1:
        # Folds differ by their rows alone, too; what they differ by more is theirs.
        between = float(by_fold.mean(axis=0).var(ddof=1)) / by_fold.shape[1]
        folds = max(0.0, between - rows**2) ** 0.5
    return Uncertainty(
        low=low,
        high=high,
        rows=rows,
        seeds=float(by_seed.std(ddof=1)) / len(by_seed) ** 0.5 if len(by_seed) > 1 else None,
        folds=folds,
        without_a_group=None
        if without_group is None
        else (float(without_group.min()), float(without_group.max())),
    )


def jackknife_error(
    score: Callable[[Targets, Probabilities], float | None],
    targets: Targets,
    probabilities: Probabilities,
) -> float:
    """Return the standard error of a score over rows, by the delete-a-block jackknife.

    ``sqrt((g - 1) / g * sum((s_i - mean(s))^2))`` over g = 20 blocks of rows, or one for each row
    where there are fewer (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 11).

    Args:
        score: of targets and probabilities; blocks without which it is undefined are skipped.
        targets: 0/1, ``[row, label]``.
        probabilities: ``[row, label]``.

    Returns:
        0.0 where fewer than two blocks give a score.
    """
    if len(targets) < 2:
        return 0.0
    blocks = np.arange(len(targets)) % min(_BLOCKS, len(targets))
    scores = [
        score(targets[blocks != block], probabilities[blocks != block])
        for block in range(int(blocks.max()) + 1)
    ]
    known = np.array([value for value in scores if value is not None])
    if len(known) < 2:
        return 0.0
    return float(np.sqrt((len(known) - 1) / len(known) * np.square(known - known.mean()).sum()))
