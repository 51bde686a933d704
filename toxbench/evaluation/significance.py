"""Which candidates can be told apart: paired tests, corrected for their number, and tiers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import NormalDist

import numpy as np

from toxbench.evaluation.bootstrap import BootstrapScores, interval
from toxbench.util.arrays import Floats

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """One candidate minus another, on the same test rows.

    Attributes:
        difference: of the mean scores.
        low: lower end of the 95 % interval.
        high: upper end.
        p: two-sided, if there were no other pairs.
        adjusted_p: Holm's, over all pairs that were compared.
        better: share of resamples in which the first is better, ties counted half.
        detectable: the smallest difference that would be found 80 times in 100, at the 5 % level.
    """

    one: str
    other: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    adjusted_p: float
    better: float
    detectable: float

    @property
    def is_clear(self) -> bool:
        """Whether the two can be told apart at the 5 % level, all pairs considered."""
        return self.adjusted_p <= ALPHA


def compare_all(
    draws: Mapping[str, BootstrapScores], means: Mapping[str, float], metric: str
) -> list[Difference]:
    """Compare every pair on one metric, in the order of ``draws``.

    Args:
        draws: candidate -> resampled scores; the same resamples for all.
        means: candidate -> mean score over its seeds.
        metric: of the draws.
    """
    found = []
    sides = {name: own.side(metric) for name, own in draws.items()}
    for one, other in combinations(draws, 2):
        resampled = sides[one].minus(sides[other])
        observed = means[one] - means[other]
        low, high = interval(resampled)
        found.append(
            Difference(
                one=one,
                other=other,
                metric=metric,
                difference=observed,
                low=low,
                high=high,
                p=two_sided_p(resampled, observed),
                adjusted_p=1.0,
                better=float((resampled > 0).mean() + (resampled == 0).mean() / 2),
                detectable=detectable(float(resampled.std())),
            )
        )
    adjusted = holm([difference.p for difference in found])
    return [replace(pair, adjusted_p=p) for pair, p in zip(found, adjusted, strict=True)]


def detectable(error: float, stretch: float = 1.0) -> float:
    """Return the difference that is found with `POWER` at the level `ALPHA`, two-sided.

    Args:
        error: standard error of the difference.
        stretch: by how much an interval of it is wider than a normal one.
    """
    normal = NormalDist()
    return error * (stretch * normal.inv_cdf(1 - ALPHA / 2) + normal.inv_cdf(POWER))


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


def tiers(ranked: Sequence[str], are_apart: Callable[[str, str], bool]) -> dict[str, int]:
    """Number tiers from 1: who cannot be told apart from the first of a tier is in it.

    Args:
        ranked: candidates, the best first.
        are_apart: whether two can be told apart.
    """
    found: dict[str, int] = {}
    first, tier = "", 0
    for name in ranked:
        if tier == 0 or are_apart(first, name):
            first, tier = name, tier + 1
        found[name] = tier
    return found
