"""Significance of differences: paired tests of all pairs, Holm's correction, and tiers."""

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
    """The difference of two candidates (first minus second) on the same test rows.

    Attributes:
        first: name of a candidate.
        second: name of the candidate that is subtracted.
        metric: of the scores.
        difference: of the mean scores.
        low: lower end of the 95 % interval.
        high: upper end.
        p: two-sided p-value of this pair, without correction.
        adjusted_p: p-value with Holm's correction for all compared pairs.
        better: share of resamples in which the first is better; ties count half.
        detectable: the difference that is detected with 80 % power at the 5 % level.
    """

    first: str
    second: str
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
        """Whether the difference is significant at the 5 % level, corrected for all pairs."""
        return self.adjusted_p <= ALPHA


def compare_all(
    draws: Mapping[str, BootstrapScores], means: Mapping[str, float], metric: str
) -> list[Difference]:
    """Compare every pair on one metric, in the order of ``draws``.

    Args:
        draws: candidate -> resampled scores, from the same resamples for all candidates.
        means: candidate -> mean score over its seeds.
        metric: of the scores.
    """
    differences = []
    paired = {name: scores.paired(metric) for name, scores in draws.items()}
    for first, second in combinations(draws, 2):
        resampled = paired[first].difference(paired[second])
        observed = means[first] - means[second]
        low, high = interval(resampled)
        differences.append(
            Difference(
                first=first,
                second=second,
                metric=metric,
                difference=observed,
                low=low,
                high=high,
                p=two_sided_p(resampled, observed),
                adjusted_p=1.0,
                better=float((resampled > 0).mean() + (resampled == 0).mean() / 2),
                detectable=detectable_effect(float(resampled.std())),
            )
        )
    adjusted = holm([difference.p for difference in differences])
    return [replace(d, adjusted_p=p) for d, p in zip(differences, adjusted, strict=True)]


def detectable_effect(error: float, factor: float = 1.0) -> float:
    """Return the difference that a two-sided test at level `ALPHA` detects with power `POWER`.

    Args:
        error: standard error of the difference.
        factor: width of its interval relative to a normal one (`t_factor`).
    """
    normal = NormalDist()
    return error * (factor * normal.inv_cdf(1 - ALPHA / 2) + normal.inv_cdf(POWER))


def two_sided_p(draws: Floats, observed: float) -> float:
    """Return the p-value of an observed difference under the null hypothesis of no difference.

    The resampled differences are shifted to mean 0; +1 in both counts keeps p above 0 (Davison and
    Hinkley 1997, section 4.2.3).

    Args:
        draws: resampled differences, ``[resample]``.
        observed: difference on the original rows.
    """
    is_extreme = np.abs(draws - draws.mean()) >= abs(observed) - 1e-12
    return float((is_extreme.sum() + 1) / (len(draws) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests (Holm 1979), in the order of the input."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def assign_tiers(ranked: Sequence[str], differ: Callable[[str, str], bool]) -> dict[str, int]:
    """Number the tiers from 1; a candidate that differs from the first of a tier starts the next.

    Args:
        ranked: candidates, best first.
        differ: whether the difference of two candidates is significant.
    """
    tiers: dict[str, int] = {}
    first, tier = "", 0
    for name in ranked:
        if tier == 0 or differ(first, name):
            first, tier = name, tier + 1
        tiers[name] = tier
    return tiers
