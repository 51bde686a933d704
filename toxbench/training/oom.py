"""What to do when memory runs out: the same work again, in smaller pieces."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from toxbench.errors import CellsFailedError

Result = TypeVar("Result")
_SAID_BY_THE_CPU = ("can't allocate memory", "not enough memory")  # by torch, as a RuntimeError


class OutOfMemoryError(CellsFailedError):
    """Memory does not suffice for the smallest piece either."""


def retried(work: Callable[[int], Result], size: int, smallest: int) -> tuple[Result, int]:
    """Do work in pieces; where memory runs out, all of it again in pieces of half the size.

    Args:
        work: is given the size.
        size: of the pieces at first.
        smallest: from which on nothing is halved.

    Returns:
        what ``work`` returned, and the size that fitted.

    Raises:
        OutOfMemoryError: the smallest size does not fit.
    """
    while True:
        found = _attempt(work, size)
        if found is not None:
            return found[0], size
        if size <= smallest:
            raise OutOfMemoryError(
                "memory ran out with the smallest batch; "
                "use a smaller --max-length, another --device or fewer --workers"
            )
        size = max(smallest, -(-size // 2))
        # The error is gone, and with it the frames that held tensors.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _attempt(work: Callable[[int], Result], size: int) -> tuple[Result] | None:
    """Return the result in a tuple; None: memory ran out."""
    try:
        return (work(size),)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        if any(words in str(error) for words in _SAID_BY_THE_CPU):
            return None
        raise
