"""How sure a score is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from toxbench.data.table import Targets
from toxbench.evaluation.bootstrap import interval
from toxbench.evaluation.counts import Floats
from toxbench.evaluation.predictions import Probabilities

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
