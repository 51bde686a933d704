"""Texts that are nearly equal: MinHash proposes pairs, then their words are compared."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

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
# Thousands of variants of one text would make millions of pairs: then the likeliest are compared.
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
        self._hashes = _hashes(self._words)
        self._alike = _alike(self._hashes)

    def among(self, rows: Rows, kept: Rows) -> list[tuple[int, int]]:
        """Return each of ``rows`` that nearly copies one of ``kept``, and the first such one."""
        first = first_rows(self._number, kept)
        numbers = self._number[rows].tolist()
        copied = {n: self._first_near(n, first) for n in dict.fromkeys(numbers) if n >= 0}
        pairs = zip(rows.tolist(), (copied.get(n) for n in numbers), strict=True)
        return [(row, other) for row, other in pairs if other is not None]

    def _first_near(self, number: int, first: Numbers) -> int | None:
        proposed = np.array(sorted({number}.union(*self._alike[number])), dtype=np.int64)
        proposed = proposed[first[proposed] >= 0]
        if len(proposed) > _COMPARED:
            agreeing = (self._hashes[proposed] == self._hashes[number]).sum(axis=(1, 2))
            proposed = proposed[np.argsort(-agreeing, kind="stable")[:_COMPARED]]
        own = self._words[number]
        near = (n for n in proposed.tolist() if _similarity(own, self._words[n]) >= SIMILARITY)
        return min((int(first[n]) for n in near), default=None)


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


def _hashes(texts: Sequence[Words]) -> npt.NDArray[np.uint32]:
    """Return ``[text, band, hash]``; two texts agree in a hash as often as they are similar."""
    hashed: Iterable[MinHash] = MinHash.generator(
        ([word.encode("utf-8") for word in words] for words in texts), num_perm=_BANDS * _HASHES
    )
    hashes = np.empty((len(texts), _BANDS, _HASHES), dtype=np.uint32)
    for number, one in enumerate(hashed):
        hashes[number] = one.hashvalues.reshape(_BANDS, _HASHES)
    return hashes


def _alike(hashes: npt.NDArray[np.uint32]) -> list[list[list[int]]]:
    """Return for each text the buckets that it shares with others: lists of text numbers."""
    alike: list[list[list[int]]] = [[] for _ in hashes]
    for band in range(_BANDS):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for number, own in enumerate(hashes[:, band]):
            buckets[own.tobytes()].append(number)
        for bucket in buckets.values():
            for number in bucket if len(bucket) > 1 else ():
                alike[number].append(bucket)
    return alike


def _similarity(words: Words, others: Words) -> float:
    both = len(words & others)
    return both / (len(words) + len(others) - both)
