"""Number equal texts, and the groups of rows that a grouped split keeps in one part."""

import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from toxbench.data.table import TextDataset

Numbers = npt.NDArray[np.int64]

DIGEST_BYTES = 16  # two different texts have equal digests with a probability of 1 in 2 ** 128
_NONE_DIGEST = bytes(DIGEST_BYTES)


def normalize_text(text: str) -> str:
    """Return a text in NFKC form, case-folded, with single spaces; equal comments compare equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def row_groups(comments: TextDataset) -> npt.NDArray[np.int64]:
    """Number the groups of rows that must stay in one part of a split.

    Two rows are in one group if they have the same value in the table's group column, if their
    texts are equal after `normalize_text`, or if a chain of such rows connects them. Any other
    row is a group by itself.

    Returns:
        int64 ``[row]``: numbers from 0, in the order of each group's first row.
    """
    from scipy.sparse import coo_array  # imported here: printing a leaderboard does not need it
    from scipy.sparse.csgraph import connected_components

    texts = group_ids(map(normalize_text, comments.texts))
    if comments.groups is None:
        return texts
    groups = group_ids(comments.groups)
    grouped = np.flatnonzero(groups >= 0)
    # A graph of texts and groups, with an edge for every row that has both.
    text_count = texts.max(initial=-1) + 1
    edges = (np.ones(len(grouped), np.int8), (texts[grouped], text_count + groups[grouped]))
    nodes = text_count + groups.max(initial=-1) + 1
    _, components = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)
    row_components = components[texts].astype(np.int64)
    return relabel_by_first_seen(np.argsort(row_components, kind="stable"), row_components)


def group_ids(values: Iterable[str | None]) -> Numbers:
    """Number texts in the order in which they first appear.

    Args:
        values: texts of any length; only their digests are kept in memory.

    Returns:
        int64 ``[value]``: numbers from 0, equal for equal values; -1 for None.
    """
    digests = bytearray()
    for value in values:
        digests += _NONE_DIGEST if value is None else text_digest(value)
    halves = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    numbers = relabel_by_first_seen(np.lexsort(halves.T), halves)
    is_none = np.asarray(~halves.any(axis=1))
    if not is_none.any():
        return numbers
    none_number = numbers[is_none][0]
    return np.where(is_none, -1, numbers - (numbers > none_number))


def relabel_by_first_seen(order: Numbers, keys: npt.NDArray[np.generic]) -> Numbers:
    """Number keys from 0 in the order in which they first appear; equal keys get one number.

    Args:
        order: result of a stable sort of the keys, ``[key]``.
        keys: ``[key]`` or ``[key, column]``.
    """
    is_start = run_starts(keys[order])
    first_positions = order[is_start]  # the first of equal keys, because the sort is stable
    ranks = np.empty(len(first_positions), dtype=np.int64)
    ranks[np.argsort(first_positions)] = np.arange(len(first_positions))
    numbers = np.empty(len(keys), dtype=np.int64)
    numbers[order] = ranks[np.cumsum(is_start) - 1]
    return numbers


def run_starts(ordered: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return whether each key differs from the one before it, bool ``[key]``.

    Args:
        ordered: sorted keys, ``[key]`` or ``[key, column]``.
    """
    is_start = np.ones(len(ordered), dtype=bool)
    differs = ordered[1:] != ordered[:-1]
    is_start[1:] = differs if differs.ndim == 1 else differs.any(axis=1)
    return is_start


def text_digest(value: str) -> bytes:
    """Return a short digest of a text, as bytes of a fixed length."""
    return blake2b(value.encode("utf-8"), digest_size=DIGEST_BYTES).digest()
