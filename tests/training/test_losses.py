"""The named losses against their formulas."""

import numpy as np
import pytest
import torch

from toxbench.settings import TrainSettings
from toxbench.training.losses import LOSSES

TARGETS = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=np.uint8)
LOGITS = torch.tensor([[2.0, -1.0, 0.3], [0.1, -3.0, -0.2], [-1.0, 0.5, 4.0], [0.0, 0.0, 0.0]])


def value(name: str, **settings: float) -> float:
    loss = LOSSES[name](TARGETS, TrainSettings(loss=name, **settings))
    return float(loss(LOGITS, torch.from_numpy(TARGETS).float()))


def entropy() -> tuple[np.ndarray, np.ndarray]:
    p = 1 / (1 + np.exp(-LOGITS.numpy().astype(np.float64)))
    p_t = np.where(TARGETS == 1, p, 1 - p)
    return -np.log(p_t), p_t


def test_bce_is_the_mean_negative_log_likelihood() -> None:
    assert value("bce") == pytest.approx(entropy()[0].mean(), rel=1e-6)


def test_focal_follows_its_paper() -> None:
    loss, p_t = entropy()
    assert value("focal", focal_gamma=2.0) == pytest.approx(
        ((1 - p_t) ** 2 * loss).mean(), rel=1e-5
    )
    assert value("focal", focal_gamma=0.0) == pytest.approx(value("bce"), rel=1e-6)


def test_positive_weights_are_capped_and_safe_without_positives() -> None:
    weights = np.array([1.0, 1.0, 2.0])  # 1 negative to 3 positives; none; 3 to 1, capped at 2
    loss, _ = entropy()
    expected = (np.where(TARGETS == 1, weights, 1.0) * loss).mean()
    assert value("weighted-bce", pos_weight_cap=2.0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_for_extreme_logits(name: str) -> None:
    logits = torch.tensor([[80.0, -80.0, 0.0]] * 4, requires_grad=True)
    loss = LOSSES[name](TARGETS, TrainSettings(loss=name, focal_gamma=0.5))
    loss(logits, torch.from_numpy(TARGETS).float()).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
