"""Texts that are nearly equal: MinHash proposes pairs, then their words are compared."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, islice

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from toxbench.data.split import Rows

SIMILARITY = 0.8
LEAST_WORDS = 6
DEFINITION = (
    f"two texts of at least {LEAST_WORDS} different words each; of all words in the two, "
    f"{SIMILARITY:.0%} or more are in both (Jaccard), whatever their case, order and punctuation"
)

Numbers = npt.NDArray[np.int64]
Words = frozenset[str]

_WORD = re.compile(r"\w+")
# A pair at the threshold agrees in one of 25 bands of 5 hashes with a probability of 0.99995; with
# longer bands pairs are missed, with shorter ones most of those proposed are no copies.
_BANDS, _HASHES = 25, 5
# Thousands of variants of one text would make millions of pairs. Those in the smallest buckets are
# compared, because what puts few texts together are the words that others do not have.
_COMPARED = 1000


class NearCopies:
    """Finds rows whose words are nearly those of another row. Short texts are never found."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Index the texts, ``[row]``, as `toxbench.data.groups.plain_text` writes them."""
        numbers: dict[Words, int] = {}
        self._number = np.full(len(texts), -1, dtype=np.int64)
        for row, text in enumerate(texts):
            words = frozenset(_WORD.findall(text))
            if len(words) >= LEAST_WORDS:
                self._number[row] = numbers.setdefault(words, len(numbers))
        self._words = list(numbers)
        self._buckets = _buckets(self._words)

    def among(self, rows: Rows, kept: Rows) -> list[tuple[int, int]]:
        """Return each of ``rows`` that nearly copies one of ``kept``, and the first such one."""
        first = first_rows(self._number, kept).tolist()
        numbers = self._number[rows].tolist()
        copied = {n: self._first_near(n, first) for n in dict.fromkeys(numbers) if n >= 0}
        pairs = zip(rows.tolist(), (copied.get(n) for n in numbers), strict=True)
        return [(row, other) for row, other in pairs if other is not None]

    def _first_near(self, number: int, first: list[int]) -> int | None:
        smallest = chain((number,), *sorted(self._buckets[number], key=len))
        proposed = set(islice((n for n in smallest if first[n] >= 0), _COMPARED))
        own = self._words[number]
        near = (n for n in proposed if _similarity(own, self._words[n]) >= SIMILARITY)
        return min((first[n] for n in near), default=None)


def first_rows(numbers: Numbers, rows: Rows) -> Numbers:
    """Find where each number stands first.

    Args:
        numbers: int64 ``[row]``, counted from 0; -1 is no number.
        rows: those to look at, in any order.

    Returns:
        int64 ``[number]``: the smallest of ``rows`` that has the number, -1 where none has it.
    """
    first = np.full(numbers.max(initial=-1) + 1, -1, dtype=np.int64)
    rows = np.sort(rows[numbers[rows] >= 0])
    found, places = np.unique(numbers[rows], return_index=True)
    first[found] = rows[places]
    return first


def _buckets(texts: Sequence[Words]) -> list[list[list[int]]]:
    """Return for each text the buckets that it shares with others: lists of text numbers."""
    hashes: Iterable[MinHash] = MinHash.generator(
        ([word.encode("utf-8") for word in words] for words in texts), num_perm=_BANDS * _HASHES
    )
    bands = [text.hashvalues.reshape(_BANDS, _HASHES) for text in hashes]
    buckets: list[list[list[int]]] = [[] for _ in texts]
    for band in range(_BANDS):
        alike: dict[bytes, list[int]] = defaultdict(list)
        for number, hashed in enumerate(bands):
            alike[hashed[band].tobytes()].append(number)
        for bucket in alike.values():
            for number in bucket if len(bucket) > 1 else ():
                buckets[number].append(bucket)
    return buckets


def _similarity(words: Words, others: Words) -> float:
    both = len(words & others)
    return both / (len(words) + len(others) - both)
