"""Scores of slices, which are parts of the test rows, and their differences to the other rows.

The AUCs of a slice and their power mean are those of Borkan et al. 2019 (arXiv:1903.04561).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from toxbench.evaluation.bootstrap import (
    SampleCounts,
    Units,
    bootstrap,
    score_interval,
    sum_by_unit,
)
from toxbench.evaluation.significance import compare_all, holm
from toxbench.evaluation.thresholds import POSITIVES_NEEDED
from toxbench.util.arrays import Counts, Members, Probabilities

METRIC = "micro_f1"
_POWER = -5  # low AUCs dominate the mean


class SliceScore(NamedTuple):
    """The score of a slice, and its difference to the other rows, with 95 % intervals."""

    score: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float


def compare_slices(
    counts: Counts, units: Units, slices: Mapping[str, Members]
) -> dict[str, SliceScore]:
    """Score one candidate on slices and, on the same resampled rows, on the other rows.

    Args:
        counts: of the candidate's predictions (see `row_counts`), float32 ``[seed, row, count]``.
        units: number of each row's sampling unit, ``[row]``.
        slices: name -> bool ``[row]``.

    Returns:
        slices with at least `POSITIVES_NEEDED` positive units inside and outside; p-values have
        Holm's correction for these slices.
    """
    positive = counts[0, :, 0] + counts[0, :, 2] > 0  # hits and misses
    # A slice of few units would be missing from many resamples.
    parts = {
        (name, part): rows
        for name, members in slices.items()
        if _count_units(units, positive & members) >= POSITIVES_NEEDED
        and _count_units(units, positive & ~members) >= POSITIVES_NEEDED
        for part, rows in (("slice", members), ("rest", ~members))
    }
    draws = bootstrap(
        {key: SampleCounts(sum_by_unit(counts * p[:, None], units)) for key, p in parts.items()}
    )
    by_slice: dict[str, SliceScore] = {}
    for name in dict.fromkeys(name for name, _ in parts):
        pair = {part: draws[name, part] for part in ("slice", "rest")}
        means = {part: float(scores.observed[METRIC].mean()) for part, scores in pair.items()}
        ends = score_interval(pair["slice"], METRIC)
        (d,) = compare_all(pair, means, METRIC)
        p = 1.0 if d.p is None else d.p
        by_slice[name] = SliceScore(means["slice"], *ends, d.difference, d.low, d.high, p)
    adjusted = holm([score.p for score in by_slice.values()])
    pairs = zip(by_slice.items(), adjusted, strict=True)
    return {name: score._replace(p=p) for (name, score), p in pairs}


def slice_aucs(
    positive: Members, probabilities: Probabilities, members: Members
) -> dict[str, float | None]:
    """Return the ROC AUCs of one label and one slice, means over seeds.

    Args:
        positive: whether a row has the label, bool ``[row]``.
        probabilities: of the label, ``[seed, row]``.
        members: whether a row belongs to the slice, bool ``[row]``.

    Returns:
        ``subgroup``: positives and negatives of the slice; ``bpsn``: background positives,
        subgroup negatives; ``bnsp``: background negatives, subgroup positives. None: one of the
        two has fewer than `POSITIVES_NEEDED` rows.
    """
    return {
        "subgroup": _auc(probabilities, positive & members, ~positive & members),
        "bpsn": _auc(probabilities, positive & ~members, ~positive & members),
        "bnsp": _auc(probabilities, positive & members, ~positive & ~members),
    }


def power_mean(aucs: Iterable[float | None]) -> float | None:
    """Return the power mean of the AUCs that are defined, with the power -5; None if none is."""
    from scipy.stats import pmean  # lazy: the import takes a second

    defined = [auc for auc in aucs if auc is not None]
    return float(pmean(defined, _POWER)) if defined else None


def _auc(probabilities: Probabilities, positive: Members, negative: Members) -> float | None:
    """Return the mean over seeds of Mann and Whitney's statistic, divided by its maximum."""
    from scipy.stats import rankdata  # lazy, as above

    if not (_is_enough(positive) and _is_enough(negative)):
        return None
    parts = [probabilities[:, positive], probabilities[:, negative]]
    count, pairs = parts[0].shape[1], parts[0].shape[1] * parts[1].shape[1]
    ranks = rankdata(np.concatenate(parts, axis=1), axis=1)[:, :count].sum(axis=1)
    return float(((ranks - count * (count + 1) / 2) / pairs).mean())


def _count_units(units: Units, rows: Members) -> int:
    return len(np.unique(units[rows]))


def _is_enough(rows: Members) -> bool:
    return int(np.count_nonzero(rows)) >= POSITIVES_NEEDED
