"""Simulated coverage of the difference between a slice and the other rows.

Run by hand: ``pytest tests/bench/test_slices.py -m bench -s``
"""

import numpy as np
import numpy.typing as npt
import pytest
from studies import SHARES, error

from toxbench.evaluation.power import ErrorModel
from toxbench.evaluation.row_counts import SCORES, row_counts
from toxbench.evaluation.slices import METRIC, compare_slices

pytestmark = pytest.mark.bench

STUDIES, SEEDS = 1000, 5
MODEL = ErrorModel()
SKILLS = (0.0, -0.4)  # on the other rows and on the slice


def make_rows(rng: np.random.Generator, count: int) -> npt.NDArray[np.uint8]:
    """Draw targets: a latent number of a row correlates its labels; half of the rows are empty."""
    normals = np.random.default_rng(0).standard_normal(400_000)
    cuts = np.array([np.quantile(normals, 1 - share) if share else np.inf for share in SHARES])
    latent = rng.standard_normal((count, 1))
    noise = rng.standard_normal((count, len(SHARES)))
    return (0.9 * latent + (1 - 0.81) ** 0.5 * noise > cuts).astype(np.uint8)


def counts_of(
    targets: npt.NDArray[np.uint8], predictions: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    return np.stack([row_counts(targets, seed) for seed in predictions])


def simulate(
    rng: np.random.Generator, rows: int, share: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return counts ``[seed, row, count]`` and which rows belong to the slice."""
    targets = make_rows(rng, rows)
    members = rng.random(rows) < share
    outside, inside = MODEL.predict(targets, SKILLS, SEEDS, rng)
    predictions = np.where(members[:, None], inside, outside)
    return counts_of(targets, predictions), members


def true_difference() -> float:
    differences = []
    for study in range(40):
        counts, members = simulate(np.random.default_rng([1, study]), 20_000, 0.5)
        parts = (counts[:, rows].sum(axis=1, dtype=np.float64) for rows in (members, ~members))
        inside, outside = (SCORES[METRIC](sums).mean() for sums in parts)
        differences.append(inside - outside)
    return float(np.mean(differences))


@pytest.mark.parametrize(("rows", "share"), [(200, 0.5), (200, 0.2), (400, 0.1)])
def test_difference_covers_the_truth(rows: int, share: float) -> None:
    truth, covered = true_difference(), 0
    for study in range(STUDIES):
        counts, members = simulate(np.random.default_rng([2, study]), rows, share)
        score = compare_slices(counts, np.arange(rows), {"slice": members})["slice"]
        covered += score.difference_low <= truth <= score.difference_high
    shown = covered / STUDIES
    print(
        f"\n{rows} rows, {share:.0%} in the slice, difference {truth:+.3f}: 95 % intervals cover "
        f"it in {shown:.1%} +- {error(shown, STUDIES):.1%}"
    )
    assert 0.92 <= shown <= 0.97
