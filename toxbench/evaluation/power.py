"""The smallest difference that given test rows and seeds can detect, before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.row_counts import SCORES, row_counts
from toxbench.evaluation.significance import degrees_of_freedom, detectable_effect
from toxbench.util.arrays import Floats, Predictions, Targets

_REPLICATES = 400
_MAX_ROWS = 300  # of a replicate; the variance due to the rows is proportional to 1 / rows


@dataclass(frozen=True)
class ErrorModel:
    """A model of prediction errors: a threshold on normal noise around each entry's target.

    The defaults reproduce the errors of the stand-ins of bert and distilbert on the YouTube table
    (three seeds each, 200 test rows): micro-F1 0.65, standard error due to the rows 0.03, errors of
    two seeds correlated 0.7 over rows, hardly more than those of two candidates, and a further
    standard deviation between seeds of 0.025.

    Attributes:
        recall: share of the positive entries that are predicted.
        false_positive_rate: share of the negative entries that are predicted.
        row: weight of noise per row, shared by all predictions.
        entry: weight of noise per entry, shared by all predictions.
        candidate: weight of noise per entry, shared by all seeds of one candidate.
        seed: weight of noise per entry and seed, not shared.
        shift: standard deviation of a seed's skill, in standard deviations of the total noise.
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
            skills: of each candidate, in standard deviations of the total noise; 0 is average.
            seeds: number of seeds of each candidate.
            rng: random number generator.

        Returns:
            0/1, ``[candidate, seed, row, label]``.
        """
        rows, labels = targets.shape
        shared = self.row * rng.standard_normal((rows, 1))
        shared = shared + self.entry * rng.standard_normal((rows, labels))
        by_candidate = self.candidate * rng.standard_normal((len(skills), 1, rows, labels))
        by_seed = self.seed * rng.standard_normal((len(skills), seeds, rows, labels))
        noise = shared + by_candidate + by_seed
        noise /= (self.row**2 + self.entry**2 + self.candidate**2 + self.seed**2) ** 0.5
        normal = NormalDist()
        center = np.where(
            targets == 1, normal.inv_cdf(self.recall), normal.inv_cdf(self.false_positive_rate)
        )
        skill = np.asarray(skills)[:, None] + self.shift * rng.standard_normal((len(skills), seeds))
        signs = 2.0 * targets - 1
        return (noise + center + skill[:, :, None, None] * signs > 0).astype(np.uint8)


def detectable_difference(
    targets: Targets, seeds: int, model: ErrorModel | None = None
) -> dict[str, float]:
    """Return the difference of two candidates that is detected with 80 % power.

    For a single pair, tested two-sided at the 5 % level, if the model of errors holds.

    Args:
        targets: 0/1 of the test rows, ``[row, label]``.
        seeds: number of seeds of each candidate.
        model: of the candidates' errors.

    Returns:
        headline score -> difference.
    """
    model = model or ErrorModel()
    rng = np.random.default_rng(0)
    rows = min(len(targets), _MAX_ROWS)
    equal_seeds = replace(model, shift=0.0)
    differences = np.stack(
        [
            _draw_differences(_draw_rows(targets, rows, rng), equal_seeds, seeds, rng)
            for _ in range(_REPLICATES)
        ]
    )  # [replicate, score, seed]
    share = rows / len(targets)
    row_variance = differences.mean(axis=2).var(axis=0) * share
    seed_variance = 2 * np.square(model.shift * _slope(targets, model, rng)) / seeds
    between = seed_variance
    if seeds > 1:  # the variance observed between seeds includes that of seed times rows
        between = seed_variance + differences.var(axis=2, ddof=1).mean(axis=0) * share / seeds
    variance, degrees = row_variance + seed_variance, np.array(max(1, seeds - 1))
    estimated = (between / 2 if seeds > 1 else np.zeros_like(between), degrees)  # by candidate
    parts = [(row_variance, np.array(max(1, len(targets) - 1))), estimated, estimated]
    sizes = detectable_effect(variance**0.5, degrees_of_freedom(variance, parts))
    return dict(zip(HEADLINES, sizes.tolist(), strict=True))


def _draw_differences(
    targets: Targets, model: ErrorModel, seeds: int, rng: np.random.Generator
) -> Floats:
    """Draw predictions of two equal candidates; return their differences, ``[score, seed]``."""
    first, second = model.predict(targets, [0.0, 0.0], seeds, rng)
    return _scores(targets, first) - _scores(targets, second)


def _slope(targets: Targets, model: ErrorModel, rng: np.random.Generator) -> Floats:
    """Return the derivative of the scores with respect to skill, ``[score]``."""
    step = 0.1
    equal_seeds = replace(model, shift=0.0)
    drawn_targets = _draw_rows(targets, 20 * _MAX_ROWS, rng)
    better, worse = equal_seeds.predict(drawn_targets, [step, -step], 1, rng)
    rise = _scores(drawn_targets, better) - _scores(drawn_targets, worse)
    return np.asarray(rise[:, 0] / (2 * step))


def _scores(targets: Targets, predictions: Predictions) -> Floats:
    """Return the headline scores of each seed, ``[score, seed]``."""
    counts = np.stack([row_counts(targets, by_seed) for by_seed in predictions])
    sums = counts.sum(axis=1, dtype=np.float64)
    return np.array([SCORES[name](sums) for name in HEADLINES])


def _draw_rows(targets: Targets, count: int, rng: np.random.Generator) -> Targets:
    """Draw rows with replacement."""
    return targets[rng.integers(0, len(targets), size=count)]
