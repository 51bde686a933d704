"""Dropout with cheap masks for the CPU, where drawing masks takes a fifth of a training step."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_LEVELS = 1 << 16  # a probability is a multiple of 1 / _LEVELS
_POOL_SIZE = 1 << 22
_BATCHES_PER_POOL = 8


class PooledDropout(TorchFunctionMode):
    """Context manager in which dropout takes its masks from a pool of random bits.

    A mask is a slice, at a random position, of four million elements of 16 random bits each. The
    context is entered once for each batch; every eighth time a new pool is drawn. The probability
    is rounded to a multiple of 1/65536. The bits come from torch's seeded generator. Replaced are
    ``nn.Dropout``, ``functional.dropout`` and the dropout inside scaled dot-product attention, in
    every module. tests/bench/test_tricks.py measures the time that this saves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pools: dict[tuple[int, torch.dtype], torch.Tensor] = {}
        self._batch_count = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state that, with the state of torch's generator, determines the next masks."""
        pools = [[threshold, pool] for (threshold, _), pool in self._pools.items()]
        return {"batch_count": self._batch_count, "pools": pools}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._batch_count = state["batch_count"]
        self._pools = {(threshold, pool.dtype): pool for threshold, pool in state["pools"]}

    def __enter__(self) -> "PooledDropout":
        """Begin a batch."""
        if self._batch_count % _BATCHES_PER_POOL == 0:
            self._pools.clear()
        self._batch_count += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace two functions; call all others unchanged."""
        if func is functional.dropout:
            return self._dropout(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(
        self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        """Replace ``functional.dropout``; ``inplace`` would save nothing and is ignored."""
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

        A mask of more than half of the pool is drawn directly: two slices of that size would often
        be nearly equal.
        """
        count = like.numel()
        if 2 * count > _POOL_SIZE:
            return _draw_mask(count, threshold, like.dtype).view(like.shape)
        key = threshold, like.dtype
        if key not in self._pools:
            self._pools[key] = _draw_mask(_POOL_SIZE, threshold, like.dtype)
        start = int(torch.randint(_POOL_SIZE - count, ()))
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
        """Replace ``functional.scaled_dot_product_attention``, with a mask from the pool.

        Attention with dropout, but without causality and grouped heads, is computed here, because
        torch's CPU kernel does not fuse it either. All other calls go to torch. All tensors are
        ``[batch, head, token, size]``.
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
                # Not -inf: with ModernBERT's windows, padding far from every token attends to no
                # position, and its softmax would be NaN.
                lowest = torch.finfo(scores.dtype).min
                scores = (
                    scores.masked_fill(~attn_mask, lowest)
                    if attn_mask.dtype == torch.bool
                    else (scores + attn_mask.to(scores.dtype)).clamp(min=lowest)
                )
            return self._dropout(scores.softmax(dim=-1), dropout_p) @ value


def _draw_mask(count: int, threshold: int, dtype: torch.dtype) -> torch.Tensor:
    """Draw ``count`` elements: 0 with probability threshold / 65536, else 1."""
    # A random word of 64 bits has the bits of four elements.
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= threshold - _LEVELS // 2).to(dtype)


class _Drop(torch.autograd.Function):
    """Multiply by a mask of 0 and 1 and a scale; a product is cheaper than ``torch.where``."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        ctx.save_for_backward(mask)
        return (inputs * mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return (gradients[0] * mask).mul_(ctx.scale), None, None
