"""A model of how candidates err, to plan with before any is trained and to test statistics with."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from toxbench.data.table import Targets
from toxbench.evaluation.predictions import Predictions


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
