"""What pictures are drawn from, against scikit-learn and counting by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_score, recall_score

from toxbench.evaluation.curves import agreement, calibration, confusions, threshold_curve
from toxbench.evaluation.metrics import expected_calibration_error

RNG = np.random.default_rng(3)
TARGETS = (RNG.random((80, 5)) < 0.3).astype(np.uint8)
PROBABILITIES = np.clip(0.6 * TARGETS + 0.5 * RNG.random((80, 5)), 0, 1).astype(np.float32)


def test_every_threshold_scores_as_scikit_learn_does() -> None:
    thresholds = np.array([0.05, 0.3, 0.5, float(PROBABILITIES[3, 1]), 0.8])
    curve = threshold_curve(TARGETS, PROBABILITIES, thresholds)
    for place, threshold in enumerate(thresholds):
        said = (threshold < PROBABILITIES).astype(int)
        for score, values in (
            (precision_score, curve.precision), (recall_score, curve.recall), (f1_score, curve.f1),
        ):  # fmt: skip
            assert values[place] == pytest.approx(score(TARGETS, said, average="micro"))


def test_where_nothing_is_predicted_precision_is_one() -> None:
    curve = threshold_curve(TARGETS, PROBABILITIES * 0.5, np.array([0.9]))
    assert (curve.precision[0], curve.recall[0], curve.f1[0]) == (1, 0, 0)


def test_a_table_without_a_positive_has_curves_too() -> None:
    curve = threshold_curve(np.zeros_like(TARGETS), PROBABILITIES, np.array([0.0, 0.5, 1.0]))
    assert np.isfinite([curve.precision, curve.recall, curve.f1]).all()


def test_calibration_is_scikit_learns_and_fits_the_error() -> None:
    found = calibration(TARGETS, PROBABILITIES)
    share, mean = calibration_curve(TARGETS.ravel(), PROBABILITIES.ravel(), n_bins=10)
    assert found.positive_share == pytest.approx(share)
    assert found.mean_probability == pytest.approx(mean)
    assert found.counts.sum() == TARGETS.size
    error = (found.counts * abs(found.positive_share - found.mean_probability)).sum() / TARGETS.size
    assert error == pytest.approx(expected_calibration_error(TARGETS, PROBABILITIES))


def test_confusions_are_means_over_seeds_and_add_up() -> None:
    seeds = np.stack([PROBABILITIES, np.zeros_like(PROBABILITIES)])
    found = confusions(TARGETS, seeds)
    one = ((PROBABILITIES[:, 0] > 0.5) & (TARGETS[:, 0] == 1)).sum()
    assert found[0].true_positives == one / 2
    for label, counts in enumerate(found):
        assert counts.true_positives + counts.false_negatives == TARGETS[:, label].sum()
        assert sum(vars(counts).values()) == 80


def test_agreement_counts_rows_with_the_same_labels() -> None:
    other = PROBABILITIES.copy()
    other[:20, 2] = 1 - other[:20, 2]
    other[0, 2] = PROBABILITIES[0, 2]
    found = agreement({"a": PROBABILITIES[None], "b": other[None]})
    assert found.tolist() == [[1, pytest.approx(61 / 80)], [pytest.approx(61 / 80), 1]]
