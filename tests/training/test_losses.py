"""The losses equal their formulas."""

import numpy as np
import pytest
import torch

from toxbench.settings import TrainSettings
from toxbench.training.losses import LOSSES, make_loss
from toxbench.util.arrays import UNLABELLED

TARGETS = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=np.uint8)
LOGITS = torch.tensor([[2.0, -1.0, 0.3], [0.1, -3.0, -0.2], [-1.0, 0.5, 4.0], [0.0, 0.0, 0.0]])


def loss_value(name: str, **settings: float) -> float:
    loss = LOSSES[name](TARGETS, TrainSettings(loss=name, **settings))
    return float(loss(LOGITS, torch.from_numpy(TARGETS).float()))


def expected_entropy() -> tuple[np.ndarray, np.ndarray]:
    """Return binary cross-entropy and p_t, both ``[row, label]``."""
    p = 1 / (1 + np.exp(-LOGITS.numpy().astype(np.float64)))
    p_t = np.where(TARGETS == 1, p, 1 - p)
    return -np.log(p_t), p_t


def test_bce_is_the_mean_negative_log_likelihood() -> None:
    assert loss_value("bce") == pytest.approx(expected_entropy()[0].mean(), rel=1e-6)


def test_focal_equals_its_papers_formula() -> None:
    loss, p_t = expected_entropy()
    assert loss_value("focal", focal_gamma=2.0) == pytest.approx(
        ((1 - p_t) ** 2 * loss).mean(), rel=1e-5
    )
    assert loss_value("focal", focal_gamma=0.0) == pytest.approx(loss_value("bce"), rel=1e-6)


def test_positive_weights_are_capped() -> None:
    weights = np.array([1.0, 1.0, 2.0])  # negatives / positives: 1/3; no positive; 3/1, capped at 2
    loss, _ = expected_entropy()
    expected = (np.where(TARGETS == 1, weights, 1.0) * loss).mean()
    assert loss_value("weighted-bce", pos_weight_cap=2.0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_unlabelled_entries_have_no_gradient(name: str) -> None:
    codes = TARGETS.copy()
    codes[0, 0] = codes[2, 1] = UNLABELLED
    logits = LOGITS.clone().requires_grad_()
    settings = TrainSettings(loss=name)
    value = make_loss(codes, settings)(logits, torch.from_numpy(codes).float())
    value.backward()
    assert logits.grad is not None
    assert ((logits.grad == 0).numpy() == (codes == UNLABELLED)).all()
    # The other entries count as in a table in which the missing ones are certain.
    certain = LOGITS.clone()
    certain[0, 0], certain[2, 1] = 100, -100
    targets = np.where(codes == UNLABELLED, [[1, 0, 0]] * 4, codes)
    if name != "weighted-bce":  # its weights depend on all targets
        loss = LOSSES[name](targets, settings)
        assert value.item() == pytest.approx(
            float(loss(certain, torch.tensor(targets).float())), rel=1e-6
        )


def test_unlabelled_rows_are_no_negatives() -> None:
    codes = np.array([[1], [0], [0], [UNLABELLED], [UNLABELLED]], dtype=np.uint8)
    weight = make_loss(codes, TrainSettings(loss="weighted-bce", pos_weight_cap=9.0))
    logits, targets = torch.zeros(1, 1), torch.ones(1, 1)
    assert float(weight(logits, targets)) == pytest.approx(2 * np.log(2))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_for_extreme_logits(name: str) -> None:
    logits = torch.tensor([[80.0, -80.0, 0.0]] * 4, requires_grad=True)
    loss = LOSSES[name](TARGETS, TrainSettings(loss=name, focal_gamma=0.5))
    loss(logits, torch.from_numpy(TARGETS).float()).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
