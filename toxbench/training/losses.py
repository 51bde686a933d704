"""The losses by name.

Each builder takes the train targets, with `UNLABELLED` where a row is not labelled, and the
settings. The loss that it returns takes logits and float targets 0/1, both ``[batch, label]``, and
returns a scalar.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional

from toxbench.settings import TrainSettings
from toxbench.util.arrays import UNLABELLED, Codes

_CERTAINLY_NOT = -100.0  # a logit
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def bce(targets: Codes, settings: TrainSettings) -> Loss:
    """Return binary cross-entropy with logits, the mean over rows and labels."""
    return functional.binary_cross_entropy_with_logits


def weighted_bce(targets: Codes, settings: TrainSettings) -> Loss:
    """Return binary cross-entropy with positives weighted by negatives/positives, up to the cap.

    A label without a positive train row keeps weight 1.
    """
    positives, negatives = (np.count_nonzero(targets == value, axis=0) for value in (1, 0))
    ratio = negatives / np.maximum(positives, 1)
    weight = np.where(positives > 0, np.clip(ratio, 1.0, settings.pos_weight_cap), 1.0)
    pos_weight = torch.from_numpy(weight.astype(np.float32))

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal pos_weight
        # Copied once, because each copy makes the host wait for a GPU.
        pos_weight = pos_weight.to(logits.device)
        return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight)

    return loss


def focal(targets: Codes, settings: TrainSettings) -> Loss:
    """Return focal loss ``(1 - p_t)^gamma * BCE`` (Lin et al. 2017, arXiv:1708.02002).

    This is equation 4 of the paper, without the balancing factor alpha.
    """
    gamma = settings.focal_gamma

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        # exp(-BCE) is p_t. The clamp keeps the gradient of 0^gamma finite for gamma below 1.
        error = (1 - torch.exp(-entropy)).clamp(min=1e-6)
        return (error**gamma * entropy).mean()

    return loss


def make_loss(codes: Codes, settings: TrainSettings) -> Loss:
    """Return the loss of the settings; float targets may be `UNLABELLED`, and then count 0.

    Args:
        codes: of the train rows, ``[row, label]``.
        settings: training settings.
    """
    loss = LOSSES[settings.loss](codes, settings)
    if not (codes == UNLABELLED).any():
        return loss

    def labelled_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        is_labelled = targets != UNLABELLED
        # Certain and right: the loss and its gradient are 0.
        return loss(logits.masked_fill(~is_labelled, _CERTAINLY_NOT), targets * is_labelled)

    return labelled_loss


LOSSES: Mapping[str, Callable[[Codes, TrainSettings], Loss]] = {
    "bce": bce,
    "weighted-bce": weighted_bce,
    "focal": focal,
}
