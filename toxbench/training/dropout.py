"""Dropout with cheap masks for the CPU."""

from typing import Any

import torch
from torch import nn

_LEVELS = 1 << 16


class _Drop(torch.autograd.Function):
    """Zero elements with probability p and scale the rest by 1 / (1 - p)."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, threshold: int) -> torch.Tensor:
        count = inputs.numel()
        # 64 random bits are four masks' worth; bernoulli_ draws 64 bits for every element.
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        noise = words.view(torch.int16)[:count].view(inputs.shape)
        kept = noise >= threshold - _LEVELS // 2
        ctx.scale = _LEVELS / (_LEVELS - threshold)
        ctx.save_for_backward(kept)
        return torch.where(kept, inputs * ctx.scale, 0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (kept,) = ctx.saved_tensors
        return torch.where(kept, gradients[0] * ctx.scale, 0), None


class CheapDropout(nn.Module):
    """`torch.nn.Dropout` with p rounded to 1/65536; the random stream is torch's own."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._threshold = round(p * _LEVELS)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the inputs with some elements zeroed, in training mode; else as they are."""
        if not self.training or self._threshold == 0:
            return inputs
        dropped: torch.Tensor = _Drop.apply(inputs, self._threshold)  # type: ignore[no-untyped-call]
        return dropped


def with_cheap_dropout(module: nn.Module) -> nn.Module:
    """Replace every plain `torch.nn.Dropout` inside a module; p = 1 is left alone."""
    for name, child in module.named_children():
        if type(child) is nn.Dropout and child.p < 1:
            setattr(module, name, CheapDropout(child.p))
        else:
            with_cheap_dropout(child)
    return module
