"""Statistics for plots, against scikit-learn and counts by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_score, recall_score

from toxbench.evaluation.curves import (
    agreement,
    calibration,
    confusion_counts,
    extrapolate,
    threshold_curve,
)
from toxbench.evaluation.metrics import expected_calibration_error

RNG = np.random.default_rng(3)
TARGETS = (RNG.random((80, 5)) < 0.3).astype(np.uint8)
PROBABILITIES = np.clip(0.6 * TARGETS + 0.5 * RNG.random((80, 5)), 0, 1).astype(np.float32)


def test_threshold_curve_agrees_with_scikit_learn() -> None:
    thresholds = np.array([0.05, 0.3, 0.5, float(PROBABILITIES[3, 1]), 0.8])
    curve = threshold_curve(TARGETS, PROBABILITIES, thresholds)
    for i, threshold in enumerate(thresholds):
        predictions = (threshold < PROBABILITIES).astype(int)
        for score, values in (
            (precision_score, curve.precision), (recall_score, curve.recall), (f1_score, curve.f1),
        ):  # fmt: skip
            assert values[i] == pytest.approx(score(TARGETS, predictions, average="micro"))


def test_precision_without_predictions_is_one() -> None:
    curve = threshold_curve(TARGETS, PROBABILITIES * 0.5, np.array([0.9]))
    assert (curve.precision[0], curve.recall[0], curve.f1[0]) == (1, 0, 0)


def test_curve_without_positives_is_finite() -> None:
    curve = threshold_curve(np.zeros_like(TARGETS), PROBABILITIES, np.array([0.0, 0.5, 1.0]))
    assert np.isfinite([curve.precision, curve.recall, curve.f1]).all()


def test_calibration_agrees_with_scikit_learn() -> None:
    curve = calibration(TARGETS, PROBABILITIES)
    share, mean = calibration_curve(TARGETS.ravel(), PROBABILITIES.ravel(), n_bins=10)
    assert curve.positive_share == pytest.approx(share)
    assert curve.mean_probability == pytest.approx(mean)
    assert curve.counts.sum() == TARGETS.size
    error = (curve.counts * abs(curve.positive_share - curve.mean_probability)).sum() / TARGETS.size
    assert error == pytest.approx(expected_calibration_error(TARGETS, PROBABILITIES))


def test_confusion_counts_average_over_seeds() -> None:
    seeds = np.stack([PROBABILITIES, np.zeros_like(PROBABILITIES)])
    labels = confusion_counts(TARGETS, seeds)
    hits = ((PROBABILITIES[:, 0] > 0.5) & (TARGETS[:, 0] == 1)).sum()
    assert labels[0].true_positives == hits / 2
    for label, counts in enumerate(labels):
        assert counts.true_positives + counts.false_negatives == TARGETS[:, label].sum()
        assert sum(vars(counts).values()) == 80


def test_agreement_is_share_of_equal_rows() -> None:
    changed = PROBABILITIES.copy()
    changed[:20, 2] = 1 - changed[:20, 2]
    changed[0, 2] = PROBABILITIES[0, 2]
    shares = agreement({"a": PROBABILITIES[None], "b": changed[None]})
    assert shares.tolist() == [[1, pytest.approx(61 / 80)], [pytest.approx(61 / 80), 1]]


# Power laws of the error

TRAIN_ROWS = np.array([100, 200, 400, 1000])


@pytest.mark.parametrize(("scale", "exponent"), [(2.0, 0.35), (0.4, 0.0), (0.1, -0.2)])
def test_power_law_is_recovered(scale: float, exponent: float) -> None:
    scores = 1 - scale * TRAIN_ROWS**-exponent
    expected = 1 - scale * 5000**-exponent
    assert extrapolate(TRAIN_ROWS, scores, 5000) == pytest.approx(expected)


def test_resamples_are_extrapolated_separately() -> None:
    scores = np.random.default_rng(0).uniform(0.2, 0.9, (5, len(TRAIN_ROWS)))
    together = extrapolate(TRAIN_ROWS, scores, 2000)
    assert together.tolist() == pytest.approx(
        [float(extrapolate(TRAIN_ROWS, s, 2000)) for s in scores]
    )


def test_perfect_scores_have_a_finite_forecast() -> None:
    assert extrapolate(TRAIN_ROWS, np.ones(4), 2000) == pytest.approx(1, abs=0.002)


def test_forecast_is_in_the_range_of_scores() -> None:
    worse = 1 - 1e-3 * TRAIN_ROWS.astype(float)  # the error is 1 with 1,000 rows
    assert extrapolate(TRAIN_ROWS, worse, 5000) == 0
