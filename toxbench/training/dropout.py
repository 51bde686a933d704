"""Dropout with cheap masks for the CPU, where drawing them takes a fifth of a training step."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_LEVELS = 1 << 16


class CheapDropout(TorchFunctionMode):
    """While it is active, dropout draws 16 random bits an element instead of 64.

    The probability is rounded to 1/65536; the bits come from torch's own seeded generator. It
    covers ``nn.Dropout``, ``functional.dropout`` and the dropout inside scaled dot-product
    attention, whatever module they are called from. An epoch of the bert stand-in takes 0.82 of
    the time (tests/bench/test_speed.py, two cores).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace two functions, and call every other as it is."""
        replacement = _REPLACEMENTS.get(func, func)
        return replacement(*args, **(kwargs or {}))


def cheap_dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """Do what ``functional.dropout`` does; ``inplace`` saves nothing here and is ignored."""
    threshold = round(p * _LEVELS)
    if not training or threshold == 0:
        return input
    if threshold == _LEVELS:
        return torch.zeros_like(input)
    dropped: torch.Tensor = _Drop.apply(input, threshold)  # type: ignore[no-untyped-call]
    return dropped


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Do what ``functional.scaled_dot_product_attention`` does, with a cheap dropout mask.

    Only what torch's own CPU kernel does not fuse either is written out: dropout above 0 without
    causality or grouped heads. All tensors are ``[batch, head, token, size]``.
    """
    if dropout_p == 0.0 or is_causal or enable_gqa:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    # Autocast would compute the softmax in float32; torch's kernel keeps the inputs' type.
    with torch.autocast(query.device.type, enabled=False):
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        scores = (query * factor) @ key.transpose(-2, -1)
        if attn_mask is not None:
            scores = (
                scores.masked_fill(~attn_mask, -torch.inf)
                if attn_mask.dtype == torch.bool
                else scores + attn_mask.to(scores.dtype)
            )
        return cheap_dropout(scores.softmax(dim=-1), dropout_p) @ value


_REPLACEMENTS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    functional.dropout: cheap_dropout,
    functional.scaled_dot_product_attention: attention,
}


class _Drop(torch.autograd.Function):
    """Zero elements with probability threshold / 65536 and scale the rest up."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, threshold: int) -> torch.Tensor:
        count = inputs.numel()
        # One random word of 64 bits holds four elements' noise.
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
