"""Equal texts numbered alike, in a few bytes for each of them."""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

_BYTES = 16  # of a digest: equal for different texts once in 2 ** 128
_NONE = bytes(_BYTES)


def numbered(values: Iterable[str | None]) -> Numbers:
    """Number texts in the order in which they first appear.

    Args:
        values: of any length; only digests of them are held.

    Returns:
        int64 ``[value]``: from 0, equal values alike; -1 for None.
    """
    digests = bytearray()
    for value in values:
        digests += _NONE if value is None else _digest(value)
    halves = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    numbers = first_come(np.lexsort(halves.T), halves)
    is_none = np.asarray(~halves.any(axis=1))
    return _closed_up(numbers, is_none) if is_none.any() else numbers


def first_come(order: Numbers, keys: npt.NDArray[np.generic]) -> Numbers:
    """Number equal keys alike, from 0 in the order of their first places.

    Args:
        order: a stable sorting of the keys, ``[key]``.
        keys: ``[key]`` or ``[key, column]``.
    """
    begins = run_begins(keys[order])
    firsts = order[begins]  # of equal keys the first place, because the sorting is stable
    ranks = np.empty(len(firsts), dtype=np.int64)
    ranks[np.argsort(firsts)] = np.arange(len(firsts))
    numbers = np.empty(len(keys), dtype=np.int64)
    numbers[order] = ranks[np.cumsum(begins) - 1]
    return numbers


def run_begins(ordered: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return where a key, ``[key]`` or ``[key, column]``, is another than the one before."""
    begins = np.ones(len(ordered), dtype=bool)
    differs = ordered[1:] != ordered[:-1]
    begins[1:] = differs if differs.ndim == 1 else differs.any(axis=1)
    return begins


def _closed_up(numbers: Numbers, is_none: npt.NDArray[np.bool_]) -> Numbers:
    """Take the number of None out of the others."""
    taken = numbers[is_none][0]
    return np.where(is_none, -1, numbers - (numbers > taken))


def _digest(value: str) -> bytes:
    return blake2b(value.encode("utf-8"), digest_size=_BYTES).digest()
