"""Validation scores of an epoch."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss

from toxbench.evaluation.early_stopping import epoch_scores


def test_epoch_scores_are_at_threshold_half() -> None:
    draw = np.random.default_rng(0)
    targets = (draw.random((80, 4)) < 0.3).astype(np.uint8)
    probabilities = np.clip(0.3 * targets + draw.normal(0.4, 0.15, targets.shape), 0.01, 0.99)
    probabilities = probabilities.astype(np.float32)
    predicted = (probabilities > 0.5).astype(int)
    f1 = f1_score(targets, predicted, average="micro")
    accuracy = accuracy_score(targets, predicted)
    scores = epoch_scores(targets, probabilities)
    assert scores == {
        "headline": pytest.approx((f1 + accuracy) / 2),
        "micro_f1": pytest.approx(f1),
        "subset_accuracy": pytest.approx(accuracy),
        "micro_average_precision": pytest.approx(
            average_precision_score(targets.ravel(), probabilities.ravel())
        ),
        "loss": pytest.approx(log_loss(targets.ravel(), probabilities.ravel().astype("f8"))),
    }


def test_loss_of_certain_errors_is_finite() -> None:
    targets = np.array([[1, 0], [0, 1]], dtype=np.uint8)
    right = epoch_scores(targets, targets.astype(np.float32))
    wrong = epoch_scores(targets, 1 - targets.astype(np.float32))
    assert right["loss"] == 0
    assert wrong["loss"] == pytest.approx(-np.log(1e-7))


def test_no_average_precision_without_validation_positives() -> None:
    scores = epoch_scores(np.zeros((4, 2), dtype=np.uint8), np.full((4, 2), 0.25))
    assert scores["micro_average_precision"] is None
    assert (scores["micro_f1"], scores["headline"]) == (0.0, 0.5)
    assert scores["loss"] == pytest.approx(-np.log(0.75))
