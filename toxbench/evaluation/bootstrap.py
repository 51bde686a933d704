"""Resampling rows and seeds together: how far a score, a gap or a difference may be off.

The rows are resampled with replacement, and so are the seeds, independently: the pigeonhole
bootstrap (Owen 2007, doi:10.1214/07-AOAS122). Of S seeds, S - 1 are drawn, which makes the variance
between seeds unbiased (Efron and Tibshirani 1993, section 6.5). All candidates see the same draws,
so differences are paired.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.counts import COUNTS, HEADLINES, SCORES, Counts, Floats

RESAMPLES = 10_000
MOST_UNITS = 5_000  # a larger table is resampled in blocks of rows
_WEIGHTS_AT_ONCE = 20_000_000

Key = TypeVar("Key", bound=Hashable)
Units = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Evidence:
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
class Draws:
    """Resampled scores of one candidate, each ``[resample]``.

    Attributes:
        scores: metric, or metric with ``_gap`` behind it for train minus test -> values.
        rows_alone: the same metrics with every seed once, so that only rows vary.
    """

    scores: Mapping[str, Floats]
    rows_alone: Mapping[str, Floats]


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


def in_units(counts: Counts, units: Units) -> Counts:
    """Add up the rows of each unit: ``[seed, row, count]`` to ``[seed, unit, count]``."""
    size = int(units.max(initial=-1)) + 1
    summed = np.zeros((len(counts), size, counts.shape[2]), dtype=np.float32)
    for own, rows in zip(summed, counts, strict=True):
        np.add.at(own, units, rows)
    return summed


def bootstrap(
    evidence: Mapping[Key, Evidence], resamples: int = RESAMPLES, seed: int = 0
) -> dict[Key, Draws]:
    """Score every resample of every candidate; all have the same units.

    Args:
        evidence: of each candidate; they may differ in seeds.
        resamples: how many.
        seed: of the draws.
    """
    parts: dict[Key, list[Draws]] = {key: [] for key in evidence}
    shares = {key: _seed_shares(len(e.test), resamples, seed) for key, e in evidence.items()}
    elsewhere = max((_units(e.train_elsewhere) for e in evidence.values()), default=0)
    tested = max((_units(e.test) for e in evidence.values()), default=0)
    for start, test_weights, other_weights in _weights(tested, elsewhere, resamples, seed):
        for key, own in evidence.items():
            share = shares[key][start : start + len(test_weights)]
            parts[key].append(_draw(own, test_weights, other_weights, share))
    return {key: _joined(pieces) for key, pieces in parts.items()}


def _draw(own: Evidence, tested: Counts, others: Counts, share: Floats) -> Draws:
    test = _sums(tested, own.test)
    values = {name: of(test) for name, of in SCORES.items()}  # [resample, seed]
    if own.train is not None or own.train_elsewhere is not None:
        train = np.zeros_like(test)
        train += 0 if own.train is None else _sums(tested, own.train)
        train += 0 if own.train_elsewhere is None else _sums(others, own.train_elsewhere)
        values |= {f"{name}_gap": SCORES[name](train) - values[name] for name in HEADLINES}
    return Draws(
        scores={name: (value * share).sum(axis=1) for name, value in values.items()},
        rows_alone={name: value.mean(axis=1) for name, value in values.items()},
    )


def _sums(weights: Counts, counts: Counts) -> Floats:
    """Weight ``[seed, unit, count]`` by ``[resample, unit]``: ``[resample, seed, count]``."""
    flat = counts.transpose(1, 0, 2).reshape(counts.shape[1], -1)
    return (weights @ flat).reshape(len(weights), -1, len(COUNTS)).astype(np.float64)


def _joined(pieces: list[Draws]) -> Draws:
    return Draws(
        scores={n: np.concatenate([p.scores[n] for p in pieces]) for n in pieces[0].scores},
        rows_alone={n: np.concatenate([p.rows_alone[n] for p in pieces]) for n in pieces[0].scores},
    )


def _units(counts: Counts | None) -> int:
    return 0 if counts is None else counts.shape[1]


def _weights(
    tested: int, elsewhere: int, resamples: int, seed: int
) -> Iterator[tuple[int, Counts, Counts]]:
    """Yield the number of a first resample, and how often each unit is in some resamples."""
    # Streams of their own: what is tested is drawn alike, whatever was trained on.
    streams = [np.random.default_rng([seed, stream]) for stream in (0, 2)]
    size = max(1, _WEIGHTS_AT_ONCE // max(1, tested + elsewhere))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        yield start, _times(tested, count, streams[0]), _times(elsewhere, count, streams[1])


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
