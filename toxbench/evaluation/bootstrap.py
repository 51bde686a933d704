"""Resampling rows and seeds together: how far a score, a gap or a difference may be off.

The rows are resampled with replacement, and so are the seeds, independently: the pigeonhole
bootstrap (Owen 2007, doi:10.1214/07-AOAS122). Of S seeds, S - 1 are drawn, which makes the variance
between seeds unbiased (Efron and Tibshirani 1993, section 6.5). All candidates see the same draws,
so differences are paired.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from toxbench.data.table import Targets
from toxbench.evaluation.metrics import Predictions

RESAMPLES = 10_000
FEWEST_GROUPS = 20  # below, groups are too few to be resampled
_WEIGHTS_AT_ONCE = 20_000_000

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float32]  # [..., row, count] of COUNTS
COUNTS = ("true_positives", "false_positives", "false_negatives", "exact", "one")


def row_counts(targets: Targets, predictions: Predictions) -> Counts:
    """Count each row's entries, so that a score of any rows is a ratio of sums.

    Args:
        targets: 0/1, ``[row, label]``.
        predictions: 0/1, ``[row, label]``.

    Returns:
        float32 ``[row, 5]``: see `COUNTS`.
    """
    hits = (targets & predictions).sum(axis=1)
    return np.column_stack(
        [
            hits,
            predictions.sum(axis=1) - hits,
            targets.sum(axis=1) - hits,
            (targets == predictions).all(axis=1),
            np.ones(len(targets)),
        ]
    ).astype(np.float32)


def _micro_f1(sums: Floats) -> Floats:
    denominator = 2 * sums[..., 0] + sums[..., 1] + sums[..., 2]
    return 2 * sums[..., 0] / np.maximum(denominator, 1)  # nothing to find, nothing found: 0


def _subset_accuracy(sums: Floats) -> Floats:
    return sums[..., 3] / np.maximum(sums[..., 4], 1)


SCORES: Mapping[str, Callable[[Floats], Floats]] = {
    "micro_f1": _micro_f1,
    "subset_accuracy": _subset_accuracy,
}


class Bootstrap:
    """Draws of rows that every candidate shares."""

    def __init__(
        self,
        row_count: int,
        groups: Sequence[int] | None = None,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        """Prepare draws.

        Args:
            row_count: rows that were scored.
            groups: a number from 0 for each row, to resample whole groups; None: single rows.
            resamples: how many.
            seed: of the draws.
        """
        self._units = np.arange(row_count) if groups is None else np.asarray(groups)
        self._resamples = resamples
        self._seed = seed

    def scores(self, counts: Mapping[str, Counts]) -> dict[str, dict[str, Floats]]:
        """Score every resample.

        Args:
            counts: candidate -> float32 ``[seed, row, 5]``; candidates may differ in seeds.

        Returns:
            candidate -> score name -> mean over the drawn seeds, ``[resample]``.
        """
        seeds = {
            name: _seed_shares(len(c), self._resamples, self._seed) for name, c in counts.items()
        }
        flat = {name: c.transpose(1, 0, 2).reshape(c.shape[1], -1) for name, c in counts.items()}
        parts: dict[str, dict[str, list[Floats]]] = {
            name: {score: [] for score in SCORES} for name in counts
        }
        for start, weights in self._weights():
            for name, rows in flat.items():
                sums = (weights @ rows).reshape(len(weights), -1, len(COUNTS)).astype(np.float64)
                share = seeds[name][start : start + len(weights)]
                for score, of in SCORES.items():
                    parts[name][score].append((of(sums) * share).sum(axis=1))
        return {
            name: {score: np.concatenate(pieces) for score, pieces in scores.items()}
            for name, scores in parts.items()
        }

    def _weights(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the number of a first resample, and how often each row is in some resamples."""
        rng = np.random.default_rng(self._seed)
        units = int(self._units.max()) + 1
        size = max(1, _WEIGHTS_AT_ONCE // len(self._units))
        for start in range(0, self._resamples, size):
            count = min(size, self._resamples - start)
            drawn = rng.integers(0, units, size=(count, units))
            flat = (drawn + units * np.arange(count)[:, None]).ravel()
            times = np.bincount(flat, minlength=count * units).reshape(count, units)
            yield start, times[:, self._units].astype(np.float32)


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


def two_sided_p(draws: Floats, observed: float) -> float:
    """Return the probability of a difference as far from 0 as the observed one, if there is none.

    The resampled differences are moved to mean 0; +1 in both counts keeps p above 0 (Davison and
    Hinkley 1997, section 4.2.3).
    """
    far = np.abs(draws - draws.mean()) >= abs(observed) - 1e-12
    return float((far.sum() + 1) / (len(draws) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979), in their own order."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, i in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = highest
    return adjusted
