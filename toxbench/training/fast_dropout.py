"""Dropout with cheap masks for the CPU, where drawing them takes a fifth of a training step."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_LEVELS = 1 << 16
_POOL = 1 << 22
_USES = 8


class PooledDropout(TorchFunctionMode):
    """While it is active, dropout takes its masks from one pool of random bits.

    Every mask is a slice at a random place of four million elements of noise, 16 bits each, which
    are drawn anew each eighth time that this is entered, which is once a batch. The probability is
    rounded to 1/65536; the bits come from torch's own seeded generator. It covers ``nn.Dropout``,
    ``functional.dropout`` and the dropout inside scaled dot-product attention, whatever module
    they are called from. What it saves: tests/bench/test_tricks.py.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pools: dict[tuple[int, torch.dtype], torch.Tensor] = {}
        self._entered = 0

    def state(self) -> dict[str, Any]:
        """Return what the next masks depend on, beside torch's generator."""
        pools = [[threshold, pool] for (threshold, _), pool in self._pools.items()]
        return {"entered": self._entered, "pools": pools}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._entered = state["entered"]
        self._pools = {(threshold, pool.dtype): pool for threshold, pool in state["pools"]}

    def __enter__(self) -> "PooledDropout":
        """Begin a batch."""
        if self._entered % _USES == 0:
            self._pools.clear()
        self._entered += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace two functions, and call every other as it is."""
        if func is functional.dropout:
            return self._dropout(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(
        self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        """Do what ``functional.dropout`` does; ``inplace`` saves nothing here and is ignored."""
        threshold = round(p * _LEVELS)
        if not training or threshold == 0:
            return input
        if threshold == _LEVELS:
            return torch.zeros_like(input)
        mask = self._mask(input, threshold)
        scale = _LEVELS / (_LEVELS - threshold)
        dropped: torch.Tensor = _Drop.apply(input, mask, scale)  # type: ignore[no-untyped-call]
        return dropped

    def _mask(self, like: torch.Tensor, threshold: int) -> torch.Tensor:
        """Return 0 with probability threshold / 65536, else 1, of the shape and type of ``like``.

        A slice of more than half of the pool would often be nearly the same one again.
        """
        count = like.numel()
        if 2 * count > _POOL:
            return _keep(count, threshold, like.dtype).view(like.shape)
        key = threshold, like.dtype
        if key not in self._pools:
            self._pools[key] = _keep(_POOL, threshold, like.dtype)
        start = int(torch.randint(_POOL - count, ()))
        return self._pools[key][start : start + count].view(like.shape)

    def _attention(
        self,
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

        Only what torch's own CPU kernel does not fuse either is written out: dropout above 0
        without causality or grouped heads. All tensors are ``[batch, head, token, size]``.
        """
        if dropout_p == 0.0 or is_causal or enable_gqa:
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale,
                enable_gqa=enable_gqa,
            )  # fmt: skip
        # Autocast would compute the softmax in float32; torch's kernel keeps the inputs' type.
        with torch.autocast(query.device.type, enabled=False):
            factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
            scores = (query * factor) @ key.transpose(-2, -1)
            if attn_mask is not None:
                # Not -inf: padding far from every token, as ModernBERT's windows leave it, looks
                # at nothing at all, and the softmax of that would be NaN.
                lowest = torch.finfo(scores.dtype).min
                scores = (
                    scores.masked_fill(~attn_mask, lowest)
                    if attn_mask.dtype == torch.bool
                    else (scores + attn_mask.to(scores.dtype)).clamp(min=lowest)
                )
            return self._dropout(scores.softmax(dim=-1), dropout_p) @ value


def _keep(count: int, threshold: int, dtype: torch.dtype) -> torch.Tensor:
    """Draw ``count`` elements: 0 with probability threshold / 65536, else 1."""
    # One random word of 64 bits holds four elements' noise.
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= threshold - _LEVELS // 2).to(dtype)


class _Drop(torch.autograd.Function):
    """Multiply by a mask of 0 and 1 and scale up; a product is cheaper than a choice."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        ctx.save_for_backward(mask)
        return (inputs * mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return (gradients[0] * mask).mul_(ctx.scale), None, None
