"""Calibration: the fit, its inverse, and rows that it cannot be fitted on."""

import numpy as np
import pytest
from scipy.optimize import minimize

from toxbench.evaluation.thresholds import calibrate, fit_calibration, logit, sigmoid, uncalibrate
from toxbench.records import Calibration


@pytest.mark.parametrize(("temperature", "shift"), [(1, 0), (2.5, 0), (0.5, -1), (1, 2)])
def test_many_rows_recover_the_distortion(temperature: float, shift: float) -> None:
    draw = np.random.default_rng(0)
    honest = draw.normal(-1, 2, (20_000, 4))
    targets = (draw.random(honest.shape) < sigmoid(honest)).astype(np.uint8)
    fit = fit_calibration(targets, sigmoid((honest - shift) * temperature))
    assert fit.temperature == pytest.approx(temperature, rel=0.05)
    assert fit.shift == pytest.approx(shift, abs=0.05)


@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize("share", [0.1, 0.9, 1.0])
def test_fit_equals_a_general_optimizer(rows: int, share: float) -> None:
    draw = np.random.default_rng(rows)
    targets = (draw.random((rows, 3)) < share).astype(np.uint8)
    targets[0, 0] = 1
    probabilities = draw.random((rows, 3)).astype(np.float32)
    probabilities[0] = 0, 1, 0.5

    def loss(values: np.ndarray) -> float:
        scaled = np.exp(values[0]) * logit(probabilities) + values[1]
        likelihood = (np.logaddexp(0, scaled) - targets * scaled).mean()
        return float(likelihood + values @ values / (2 * rows))

    fit = fit_calibration(targets, probabilities)
    fitted = np.array([-np.log(fit.temperature), fit.shift])
    assert loss(fitted) <= minimize(loss, np.zeros(2)).fun + 1e-9


def test_no_positive_row_is_not_calibrated() -> None:
    targets = np.zeros((3, 2), dtype=np.uint8)
    assert fit_calibration(targets, np.full((3, 2), 0.4)) == Calibration(temperature=1, shift=0)
    assert fit_calibration(targets[:0], np.zeros((0, 2))) == Calibration()


def test_calibration_is_inverted() -> None:
    calibration = Calibration(temperature=1.7, shift=-0.6)
    values = np.linspace(0.001, 0.999, 50)
    calibrated = calibrate(values, calibration)
    assert (np.diff(calibrated) > 0).all()
    np.testing.assert_allclose(uncalibrate(calibrated, calibration), values, atol=1e-12)
