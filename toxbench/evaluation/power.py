"""How large a difference must be to be found on some test rows, said before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.bootstrap import t_stretch
from toxbench.evaluation.row_counts import HEADLINES, SCORES, row_counts
from toxbench.evaluation.significance import detectable
from toxbench.util.arrays import Floats, Predictions, Targets


@dataclass(frozen=True)
class ErrorModel:
    """Predictions are a threshold on normal noise around each entry's target.

    The defaults are as the stand-ins of bert and distilbert err on the YouTube table (three seeds
    each, 200 test rows): micro-F1 0.65, standard error 0.03 from the rows, errors of two seeds
    correlated 0.7 over rows, hardly more than those of two candidates, seeds 0.025 apart beyond
    that.

    Attributes:
        recall: share of the positive entries that are predicted.
        false_positive_rate: share of the negative entries that are predicted.
        row: weight of noise that a row has in all predictions.
        entry: weight of noise that an entry has in all predictions.
        candidate: weight of noise that an entry has in all seeds of one candidate.
        seed: weight of noise of one seed alone.
        shift: standard deviation of a seed's skill, in standard deviations of all noise.
    """

    recall: float = 0.62
    false_positive_rate: float = 0.042
    row: float = 1.4
    entry: float = 0.8
    candidate: float = 0.3
    seed: float = 0.75
    shift: float = 0.045

    def predict(
        self, targets: Targets, skills: Sequence[float], seeds: int, rng: np.random.Generator
    ) -> Predictions:
        """Draw predictions.

        Args:
            targets: 0/1, ``[row, label]``.
            skills: of each candidate, in standard deviations of all noise; 0 is the usual one.
            seeds: of each candidate.
            rng: of the draws.

        Returns:
            0/1, ``[candidate, seed, row, label]``.
        """
        rows, labels = targets.shape
        shared = self.row * rng.standard_normal((rows, 1))
        shared = shared + self.entry * rng.standard_normal((rows, labels))
        own = self.candidate * rng.standard_normal((len(skills), 1, rows, labels))
        noise = shared + own + self.seed * rng.standard_normal((len(skills), seeds, rows, labels))
        noise /= (self.row**2 + self.entry**2 + self.candidate**2 + self.seed**2) ** 0.5
        normal = NormalDist()
        middle = np.where(
            targets == 1, normal.inv_cdf(self.recall), normal.inv_cdf(self.false_positive_rate)
        )
        skill = np.asarray(skills)[:, None] + self.shift * rng.standard_normal((len(skills), seeds))
        sides = 2.0 * targets - 1
        return (noise + middle + skill[:, :, None, None] * sides > 0).astype(np.uint8)


_REPLICATES = 400
_MOST_ROWS = 300  # of a replicate; the row part of the variance goes with 1 / rows


def detectable_difference(
    targets: Targets, seeds: int, model: ErrorModel | None = None
) -> dict[str, float]:
    """Return the difference of two candidates that would be found 80 times in 100.

    At the 5 % level, two-sided, of a single pair, if candidates err as the model says.

    Args:
        targets: 0/1 of the test rows, ``[row, label]``.
        seeds: of each candidate.
        model: how candidates err.

    Returns:
        headline score -> difference.
    """
    model = model or ErrorModel()
    rng = np.random.default_rng(0)
    rows = min(len(targets), _MOST_ROWS)
    alike = replace(model, shift=0.0)
    differences = np.stack(
        [
            _differences(targets[_some(rng, len(targets), rows)], alike, seeds, rng)
            for _ in range(_REPLICATES)
        ]
    )  # [replicate, score, seed]
    share = rows / len(targets)
    from_rows = differences.mean(axis=2).var(axis=0) * share
    of_seeds = 2 * np.square(model.shift * _slope(targets, model, rng)) / seeds
    between = of_seeds
    if seeds > 1:  # what is seen between seeds is also what they make of the rows
        between = of_seeds + differences.var(axis=2, ddof=1).mean(axis=0) * share / seeds
    return {
        name: _detectable(float(from_rows[i] + of_seeds[i]), float(between[i]), seeds)
        for i, name in enumerate(HEADLINES)
    }


def _detectable(variance: float, between: float, seeds: int) -> float:
    if variance == 0:
        return 0.0
    stretch = t_stretch(variance, [(between, seeds)]) if seeds > 1 and between > 0 else 1.0
    return float(detectable(variance**0.5, stretch))


def _differences(
    targets: Targets, model: ErrorModel, seeds: int, rng: np.random.Generator
) -> Floats:
    """Draw two equal candidates; return their differences, ``[score, seed]``."""
    one, other = model.predict(targets, [0.0, 0.0], seeds, rng)
    return _scores(targets, one) - _scores(targets, other)


def _slope(targets: Targets, model: ErrorModel, rng: np.random.Generator) -> Floats:
    """Return how fast scores rise with skill, ``[score]``."""
    step = 0.1
    alike = replace(model, shift=0.0)
    many = targets[_some(rng, len(targets), 20 * _MOST_ROWS)]
    better, worse = alike.predict(many, [step, -step], 1, rng)
    return np.asarray((_scores(many, better) - _scores(many, worse))[:, 0] / (2 * step))


def _scores(targets: Targets, predictions: Predictions) -> Floats:
    """Return the headline scores of each seed, ``[score, seed]``."""
    counts = np.stack([row_counts(targets, one) for one in predictions])
    sums = counts.sum(axis=1, dtype=np.float64)
    return np.array([SCORES[name](sums) for name in HEADLINES])


def _some(rng: np.random.Generator, count: int, wanted: int) -> npt.NDArray[np.int64]:
    return rng.integers(0, count, size=wanted)
