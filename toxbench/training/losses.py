"""The losses by name. All take logits and float targets ``[batch, label]`` and return a scalar."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from toxbench.settings import TrainSettings

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
TrainTargets = npt.NDArray[np.uint8]


def bce(targets: TrainTargets, settings: TrainSettings) -> Loss:
    """Binary cross-entropy with logits, the mean over rows and labels."""
    return functional.binary_cross_entropy_with_logits


def weighted_bce(targets: TrainTargets, settings: TrainSettings) -> Loss:
    """Binary cross-entropy whose positives count negatives/positives times, at most the cap.

    A label with no positive train row keeps weight 1: there is nothing to weigh.
    """
    positives = targets.sum(axis=0, dtype=np.int64)
    ratio = (len(targets) - positives) / np.maximum(positives, 1)
    weight = np.where(positives > 0, np.clip(ratio, 1.0, settings.pos_weight_cap), 1.0)
    pos_weight = torch.from_numpy(weight.astype(np.float32))

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal pos_weight
        pos_weight = pos_weight.to(logits.device)  # copied once: a GPU would wait for each copy
        return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight)

    return loss


def focal(targets: TrainTargets, settings: TrainSettings) -> Loss:
    """Focal loss ``(1 - p_t)^gamma * BCE`` (Lin et al. 2017, arXiv:1708.02002), without alpha."""
    gamma = settings.focal_gamma

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        # exp(-BCE) is p_t. The clamp keeps the gradient of 0^gamma finite for gamma below 1.
        missed = (1 - torch.exp(-entropy)).clamp(min=1e-6)
        return (missed**gamma * entropy).mean()

    return loss


LOSSES: Mapping[str, Callable[[TrainTargets, TrainSettings], Loss]] = {
    "bce": bce,
    "weighted-bce": weighted_bce,
    "focal": focal,
}
