"""Simulations with known truth: do the intervals cover, are equal candidates called equal?

Run by hand: ``pytest tests/bench/test_intervals.py -m bench -s``
"""

import numpy as np
import numpy.typing as npt
import pytest

from toxbench.evaluation.bootstrap import (
    SCORES,
    Counts,
    row_counts,
)

pytestmark = pytest.mark.bench

ROWS, LABELS, SEEDS, STUDIES, RESAMPLES = 200, 12, 5, 1000, 2000
PREVALENCE = np.array([0.46, 0.35, 0.02, 0.16, 0.1, 0.14, 0.125, 0.008, 0.001, 0, 0.012, 0])


class World:
    """Rows like the real table's, and candidates whose errors depend on row and seed."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        # One latent number a row makes labels go together, and half of the rows empty.
        self.cuts = -np.quantile(rng.standard_normal(200_000), 1 - np.clip(PREVALENCE, 1e-9, 1))

    def rows(self, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
        """Draw targets and how hard each row is."""
        latent = self.rng.standard_normal(count)
        noise = self.rng.standard_normal((count, LABELS))
        mixed = 0.9 * latent[:, None] + np.sqrt(1 - 0.81) * noise
        return (mixed > -self.cuts).astype(np.uint8), self.rng.standard_normal(count)

    def predict(
        self, targets: npt.NDArray[np.uint8], hard: npt.NDArray[np.float64], skill: float,
        seed_shift: float,
    ) -> npt.NDArray[np.uint8]:  # fmt: skip
        """Predict with errors that rows share between seeds (hard) and that they do not."""
        noise = self.rng.standard_normal(targets.shape)
        signal = (2.0 * targets - 1) * (skill + seed_shift) + 0.35
        return (signal + 0.8 * hard[:, None] * (1 - 2.0 * targets) + noise > 0.9).astype(np.uint8)

    def counts(self, skill: float, targets, hard, shifts) -> Counts:  # type: ignore[no-untyped-def]
        """Return the counts of some seeds, ``[seed, row, 5]``."""
        return np.stack(
            [row_counts(targets, self.predict(targets, hard, skill, shift)) for shift in shifts]
        )


def scores(counts: Counts) -> dict[str, float]:
    return {name: float(of(counts.sum(axis=1).astype(float)).mean()) for name, of in SCORES.items()}
