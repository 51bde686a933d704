"""Power laws of the error."""

import numpy as np
import pytest

from toxbench.evaluation.extrapolation import extrapolate

ROWS = np.array([100, 200, 400, 1000])


@pytest.mark.parametrize(("scale", "exponent"), [(2.0, 0.35), (0.4, 0.0), (0.1, -0.2)])
def test_power_law_is_recovered(scale: float, exponent: float) -> None:
    scores = 1 - scale * ROWS**-exponent
    expected = 1 - scale * 5000**-exponent
    assert extrapolate(ROWS, scores, 5000) == pytest.approx(expected)


def test_resamples_are_extrapolated_separately() -> None:
    scores = np.random.default_rng(0).uniform(0.2, 0.9, (5, len(ROWS)))
    together = extrapolate(ROWS, scores, 2000)
    assert together.tolist() == pytest.approx([float(extrapolate(ROWS, s, 2000)) for s in scores])


def test_perfect_scores_have_a_finite_forecast() -> None:
    assert extrapolate(ROWS, np.ones(4), 2000) == pytest.approx(1, abs=0.002)


def test_forecast_is_in_the_range_of_scores() -> None:
    worse = 1 - 1e-3 * ROWS.astype(float)  # the error is 1 with 1,000 rows
    assert extrapolate(ROWS, worse, 5000) == 0
