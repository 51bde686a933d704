"""Standard errors and intervals of scores, gaps and differences, by resampling rows and seeds.

Rows are resampled with replacement, the same rows for every candidate and seed, so differences
are paired. Rows of a group stay together. The mean over S seeds therefore varies with the rows,
including the variance of seed times rows. The variance between whole seeds is added: S - 1 seeds
are drawn, which makes its estimate unbiased (Efron and Tibshirani 1993, section 6.5), and their
deviations are shrunk by the part that is due to the rows and already counted. A variance of few
groups or seeds is itself uncertain, so the draws are widened: the factor is the mean of the factors
of Student's t of both parts, weighted by their variances (Cochran and Cox 1957, section 4.14).

Resampling rows and seeds together (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122)
counts the shared part three times: its intervals of paired differences are far too wide if the
candidates err on the same rows.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.row_counts import COUNTS, SCORES
from toxbench.util.arrays import Counts, Floats

RESAMPLES = 4_000
MAX_UNITS = 5_000  # a larger table is resampled in blocks of rows
MIN_EFFECTIVE_UNITS = 3.0  # with fewer, no interval can be given
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
        scores: names of the scores to compute.
        gaps: names of the scores to compute gaps of, if there are train rows.
        folds: score -> observed value on each fold's test rows, ``[seed, fold]``; empty without
            folds.
        fold_ratio: number of a fold's test rows divided by that of its train rows.
    """

    test: Counts
    train: Counts | None = None
    train_only: Counts | None = None
    scores: tuple[str, ...] = tuple(HEADLINES)
    gaps: tuple[str, ...] = tuple(HEADLINES)
    folds: Mapping[str, Floats] = field(default_factory=dict)
    fold_ratio: float = 0.0


@dataclass(frozen=True, eq=False)
class BootstrapScores:
    """Resampled scores of one candidate.

    Attributes:
        values: metric, or metric with the suffix ``_gap`` for train minus test -> scores of each
            seed on resampled rows, ``[resample, seed]``.
        observed: the same scores on the original rows, ``[seed]``.
        seed_weights: weight of each seed in each resample, ``[resample, seed]``.
        effective_units: effective number of sampling units among the test rows.
        folds: as in `SampleCounts`, as is ``fold_ratio``.
    """

    values: Mapping[str, Floats]
    observed: Mapping[str, Floats]
    seed_weights: Floats
    effective_units: float
    folds: Mapping[str, Floats]
    fold_ratio: float

    def scores(self, metric: str) -> Floats:
        """Return mean scores over resampled rows and seeds, ``[resample]``."""
        rows, observed = self.fixed_seed_scores(metric), self.observed[metric]
        seeds, between = len(observed), variance_over_seeds(observed)
        draws, parts = rows, [(float(rows.var()), self.effective_units - 1)]
        if between > 0:
            within = variance_over_seeds(self.values[metric])
            share = float(added_variance(between, within) / between)
            draws = rows + share**0.5 * (self.seed_weights @ observed - observed.mean())
            parts.append((float(between) / seeds, seeds - 1))
        return _stretch(draws, t_factor(parts))

    def fixed_seed_scores(self, metric: str) -> Floats:
        """Return mean scores over resampled rows, with each seed counted once, ``[resample]``.

        Resampling n units gives (n - 1) / n of the variance, which is corrected here.
        """
        units = self.effective_units
        factor = (units / (units - 1)) ** 0.5 if units > 1 else 1.0
        return _stretch(self.values[metric].mean(axis=1), factor)


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty of a mean score, by source.

    Attributes:
        low: lower end of the 95 % interval, over rows and seeds.
        high: upper end.
        rows: standard error due to the test rows.
        seeds: standard error due to the seeds; None for a single seed.
        folds: standard error due to the folds beyond their rows; None for a single fold.
    """

    low: float
    high: float
    rows: float
    seeds: float | None = None
    folds: float | None = None


def effective_number(sizes: npt.NDArray[np.floating]) -> float:
    """Return how many units of equal size are worth these: n^2 / sum of squared sizes (Kish 1965).

    Args:
        sizes: number of rows of each unit, ``[unit]``, at least one of them above 0.
    """
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def variance_over_seeds(values: Floats) -> Floats:
    """Return the variance over seeds of ``[..., seed]``, mean over the rest; 0 for one seed."""
    return np.asarray(values.var(axis=-1, ddof=1).mean() if values.shape[-1] > 1 else 0.0)


def added_variance(between: Floats, within: Floats) -> Floats:
    """Return the variance between seeds that resampled means do not contain yet.

    The observed variance between seeds is that of whole seeds plus that of seed times rows;
    resampled rows contain the latter twice. The difference of the two is therefore the variance
    of seed times rows, which the resampled means already contain.

    Args:
        between: variance between seeds on the original rows, of any shape.
        within: variance between seeds on resampled rows, mean over resamples.
    """
    return np.maximum(0.0, between - np.maximum(0.0, within - between))


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
            effective_units=effective_number(_unit_sizes(samples[key])),
            folds=samples[key].folds,
            fold_ratio=samples[key].fold_ratio,
        )
        for key, parts in chunks.items()
    }


def interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled values."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_interval(resampled: BootstrapScores, metric: str) -> tuple[float, float]:
    """Return the 95 % interval of a score, which is within 0 and 1, or of a gap.

    Near 0 and 1 a score is skewed and varies less, so its interval is that of the log-odds, to
    first order (Boyd, Eng and Page 2013, doi:10.1007/978-3-642-40994-3_29, on average precision).
    """
    from scipy.special import expit, logit  # lazy: not every command computes intervals

    ends, score = interval(resampled.scores(metric)), float(resampled.observed[metric].mean())
    if metric.endswith("_gap"):
        return ends
    if 0 < score < 1:
        ends = expit(logit(score) + (np.array(ends) - score) / (score * (1 - score)))
    return max(0.0, float(ends[0])), min(1.0, float(ends[1]))


def measure_uncertainty(resampled: BootstrapScores, metric: str) -> Uncertainty:
    """Summarise the resampled scores of one metric, or its gaps."""
    (low, high), observed = score_interval(resampled, metric), resampled.observed[metric]
    rows, seeds = float(resampled.fixed_seed_scores(metric).std()), len(observed)
    folds = None
    if metric in resampled.folds:
        # Folds differ because of their rows, too; only the remainder is due to the folds.
        means = resampled.folds[metric].mean(axis=0)
        folds = max(0.0, float(means.var(ddof=1)) / len(means) - rows**2) ** 0.5
    return Uncertainty(
        low=low,
        high=high,
        rows=rows,
        seeds=float(observed.std(ddof=1)) / seeds**0.5 if seeds > 1 else None,
        folds=folds,
    )


def t_factor(parts: Sequence[tuple[float, float]]) -> float:
    """Return the width of a 95 % interval relative to a normal one of the same variance.

    Args:
        parts: of the variance: each part, and the degrees of freedom of its estimate.
    """
    from scipy.special import ndtri, stdtrit  # lazy: not every command computes intervals

    variance = sum(part for part, _ in parts)
    width = sum(part * stdtrit(degrees, 0.975) for part, degrees in parts if part > 0)
    return float(width / variance / ndtri(0.975)) if variance else 1.0


def _stretch(draws: Floats, factor: float) -> Floats:
    """Multiply deviations from the mean."""
    mean = draws.mean()
    return np.asarray(mean + factor * (draws - mean))


def _scores(sample: SampleCounts, tested: Counts, train_only: Counts) -> dict[str, Floats]:
    """Score weighted units: metric -> ``[resample, seed]``."""
    test = _weighted_sums(tested, sample.test)
    values = {name: SCORES[name](test) for name in sample.scores}
    parts = ((tested, sample.train), (train_only, sample.train_only))
    sums = [_weighted_sums(weights, counts) for weights, counts in parts if counts is not None]
    if sums:
        train = np.sum(sums, axis=0)
        values |= {f"{name}_gap": SCORES[name](train) - SCORES[name](test) for name in sample.gaps}
    return values


def _weighted_sums(weights: Counts, counts: Counts) -> Floats:
    """Weight ``[seed, unit, count]`` by ``[resample, unit]``: ``[resample, seed, count]``."""
    seeds, units, kinds = counts.shape
    # Shapes are explicit, not -1: there are no train-only units if every row is tested.
    flat = counts.transpose(1, 0, 2).reshape(units, seeds * kinds)
    return (weights @ flat).reshape(len(weights), seeds, kinds).astype(np.float64)


def _unit_sizes(sample: SampleCounts) -> Floats:
    """Return the number of test rows of each unit, ``[unit]``."""
    return sample.test[0, :, COUNTS.index("one")].astype(np.float64)


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
