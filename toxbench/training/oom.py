"""Retrying work in smaller pieces when memory runs out."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from toxbench.errors import CellsFailedError

Result = TypeVar("Result")
# Of the RuntimeError that torch raises if memory runs out on a CPU.
_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


class OutOfMemoryError(CellsFailedError):
    """Memory runs out even with the smallest piece."""


def retry_on_oom(work: Callable[[int], Result], size: int, smallest: int) -> tuple[Result, int]:
    """Run work in pieces; if memory runs out, run it again with pieces of half the size.

    Returns:
        the result of ``work``, and the size that fitted into memory.

    Raises:
        OutOfMemoryError: the smallest size does not fit.
    """
    while True:
        result = _attempt(work, size)
        if result is not None:
            return result[0], size
        if size <= smallest:
            raise OutOfMemoryError(
                "memory ran out with the smallest batch; "
                "use a smaller --max-length, another --device or fewer --workers"
            )
        size = max(smallest, -(-size // 2))
        # The error no longer exists, nor do its frames, which referred to tensors.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _attempt(work: Callable[[int], Result], size: int) -> tuple[Result] | None:
    """Return the result in a tuple, or None if memory ran out."""
    try:
        return (work(size),)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        if any(message in str(error) for message in _CPU_MESSAGES):
            return None
        raise
