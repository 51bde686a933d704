"""Texts that are nearly equal: MinHash proposes pairs, then their words are compared."""

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b, sha1

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from toxbench.util.arrays import Rows

Numbers = npt.NDArray[np.int64]

_BYTES = 16  # of a digest: equal for different texts once in 2 ** 128
_NONE = bytes(_BYTES)


def group_ids(values: Iterable[str | None]) -> Numbers:
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
    numbers = relabel_by_first_seen(np.lexsort(halves.T), halves)
    is_none = np.asarray(~halves.any(axis=1))
    return _closed_up(numbers, is_none) if is_none.any() else numbers


def relabel_by_first_seen(order: Numbers, keys: npt.NDArray[np.generic]) -> Numbers:
    """Number equal keys alike, from 0 in the order of their first places.

    Args:
        order: a stable sorting of the keys, ``[key]``.
        keys: ``[key]`` or ``[key, column]``.
    """
    begins = run_starts(keys[order])
    firsts = order[begins]  # of equal keys the first place, because the sorting is stable
    ranks = np.empty(len(firsts), dtype=np.int64)
    ranks[np.argsort(firsts)] = np.arange(len(firsts))
    numbers = np.empty(len(keys), dtype=np.int64)
    numbers[order] = ranks[np.cumsum(begins) - 1]
    return numbers


def run_starts(ordered: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return where a key, ``[key]`` or ``[key, column]``, is another than the one before."""
    begins = np.ones(len(ordered), dtype=bool)
    differs = ordered[1:] != ordered[:-1]
    begins[1:] = differs if differs.ndim == 1 else differs.any(axis=1)
    return begins


def _closed_up(numbers: Numbers, is_none: npt.NDArray[np.bool_]) -> Numbers:
    """Take the number of None out of the others."""
    take_rows = numbers[is_none][0]
    return np.where(is_none, -1, numbers - (numbers > take_rows))


def _digest(value: str) -> bytes:
    return blake2b(value.encode("utf-8"), digest_size=_BYTES).digest()


SIMILARITY = 0.8
LEAST_WORDS = 6
DEFINITION = (
    f"two texts of at least {LEAST_WORDS} different words each; of all words in the two, "
    f"{SIMILARITY:.0%} or more are in both (Jaccard), whatever their case, order and punctuation"
)

_WORD = re.compile(r"\w+")
# A pair at the threshold agrees in one of 25 bands of 5 hashes with a probability of 0.99995; with
# longer bands pairs are missed, with shorter ones most of those proposed are no copies.
_BANDS, _HASHES = 25, 5
# Thousands of variants of one text would make millions of pairs. Those in the smallest buckets are
# compared, because what puts few texts together are the words that others do not have.
_COMPARED = 1000
_WORDS_REMEMBERED = 1_000_000
_TEXTS_AT_ONCE = 20_000
_FIRST_LOOK = 32  # candidates; most texts that have a near copy have it among these
_MIX = np.uint64(0x9E3779B97F4A7C15)

Places = npt.NDArray[np.int32]


class NearCopies:
    """Finds rows whose words are nearly those of another row. Short texts are never found."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Index the texts, ``[row]``, as `toxbench.data.groups.plain_text` writes them."""
        self._number, self._words = _indexed(texts)
        self._buckets = [_Buckets(keys) for keys in _bands(self._words)]

    def among(self, rows: Rows, kept: Rows) -> list[tuple[int, int]]:
        """Return each of ``rows`` that nearly copies one of ``kept``, and the first such one."""
        first = first_rows(self._number, kept)
        numbers = self._number[rows]
        asked = np.unique(numbers[numbers >= 0])
        near = np.full(len(self._words) + 1, -1, dtype=np.int64)  # the last place is of number -1
        bands = [band.of(first >= 0) for band in self._buckets]
        for start in range(0, len(asked), _TEXTS_AT_ONCE):
            some = asked[start : start + _TEXTS_AT_ONCE]
            for number, proposed in zip(some.tolist(), _proposals(some, bands), strict=True):
                near[number] = self._first_near(number, proposed, first)
        pairs = zip(rows.tolist(), near[numbers].tolist(), strict=True)
        return [(row, other) for row, other in pairs if other >= 0]

    def _first_near(self, number: int, proposed: Numbers, first: Numbers) -> int:
        """Return the first kept row of the texts that are near; -1: none of them is."""
        own = [number] if first[number] >= 0 else []
        candidates = np.unique(np.concatenate([own, proposed[: _COMPARED - len(own)]])).astype(int)
        candidates = candidates[self._words.can_be_near(number, candidates)]
        candidates = candidates[np.argsort(first[candidates])]
        for some in np.split(candidates, [_FIRST_LOOK]):
            near = some[self._words.similarities(number, some) >= SIMILARITY]
            if len(near):
                return int(first[near[0]])
        return -1


class _Words:
    """The different words of texts, as sorted 64-bit hashes of them, end to end."""

    def __init__(self, hashes: npt.NDArray[np.uint64], counts: Numbers) -> None:
        self.hashes = hashes
        self.counts = counts
        self.offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])

    def __len__(self) -> int:
        return len(self.counts)

    def can_be_near(self, number: int, others: Numbers) -> npt.NDArray[np.bool_]:
        """Whether texts have so like numbers of words that they may be similar enough."""
        own, theirs = self.counts[number], self.counts[others]
        return np.asarray(np.minimum(own, theirs) / np.maximum(own, theirs) >= SIMILARITY)

    def similarities(self, number: int, others: Numbers) -> npt.NDArray[np.float64]:
        """Return the Jaccard similarity of one text to each of some others."""
        if not len(others):
            return np.empty(0)
        own = self.hashes[self.offsets[number] : self.offsets[number + 1]]
        counts = self.counts[others]
        starts = np.cumsum(counts) - counts
        places = np.repeat(self.offsets[others] - starts, counts) + np.arange(counts.sum())
        words = self.hashes[places]
        is_shared = own[np.searchsorted(own, words).clip(max=len(own) - 1)] == words
        both = np.add.reduceat(is_shared, starts, dtype=np.int64)
        return np.asarray(both / (len(own) + counts - both))


class _Buckets:
    """Texts of one band, those together whose hashes agree; a text alone is in no bucket."""

    def __init__(self, keys: npt.NDArray[np.uint64]) -> None:
        order = np.argsort(keys, kind="stable").astype(np.int32)
        begins = np.flatnonzero(run_starts(keys[order]))
        ends = np.append(begins, len(order))[1:]
        is_shared = np.repeat(ends - begins > 1, ends - begins)
        self.members: Places = order[is_shared]
        self.starts = self._of_texts(order, is_shared, begins, ends, begins)
        self.ends = self._of_texts(order, is_shared, begins, ends, ends)

    @staticmethod
    def _of_texts(
        order: Places,
        is_shared: npt.NDArray[np.bool_],
        begins: Numbers,
        ends: Numbers,
        places: Numbers,
    ) -> Places:
        """Return for each text a place of its bucket among the members; 0 where it is alone."""
        moved = np.concatenate([[0], np.cumsum(is_shared)])[places]
        found = np.zeros(len(order), dtype=np.int32)
        found[order] = np.where(is_shared, np.repeat(moved, ends - begins), 0)
        return found

    def of(self, is_kept: npt.NDArray[np.bool_]) -> "_Kept":
        """Leave only some texts in the buckets."""
        there = is_kept[self.members]
        moved = np.concatenate([[0], np.cumsum(there)]).astype(np.int32)
        return _Kept(self, self.members[there], moved)


class _Kept:
    """Buckets of one band with only those texts that may be copied."""

    def __init__(self, whole: _Buckets, members: Places, moved: Places) -> None:
        self.members = members
        self._whole = whole
        self._moved = moved

    def sizes(self, numbers: Numbers) -> Places:
        """Return the texts in the whole bucket of each number."""
        return np.asarray(self._whole.ends[numbers] - self._whole.starts[numbers])

    def places(self, numbers: Numbers) -> tuple[Places, Places]:
        """Return where the members of each number's bucket start and end."""
        whole = self._whole
        return self._moved[whole.starts[numbers]], self._moved[whole.ends[numbers]]


def _proposals(numbers: Numbers, bands: Sequence[_Kept]) -> Iterator[Numbers]:
    """Yield for each text the members of its buckets, those of small buckets first."""
    by_size = np.argsort([band.sizes(numbers) for band in bands], axis=0, kind="stable")
    starts, ends = np.array([band.places(numbers) for band in bands]).transpose(1, 2, 0)
    for own, start, end in zip(by_size.T.tolist(), starts.tolist(), ends.tolist(), strict=True):
        found: list[Places] = [np.empty(0, dtype=np.int32)]
        left = _COMPARED
        for band in own:
            if start[band] < end[band] and left > 0:
                found.append(bands[band].members[start[band] : min(end[band], start[band] + left)])
                left -= len(found[-1])
        yield np.concatenate(found).astype(np.int64)


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


def _indexed(texts: Iterable[str]) -> tuple[Numbers, _Words]:
    """Number the sets of words that texts have; -1 where they are too few."""
    hashed: dict[str, int] = {}
    known: dict[bytes, int] = {}
    numbers, counts, words = array("q"), array("q"), array("Q")
    for text in texts:
        different = {_hashed(word, hashed) for word in _WORD.findall(text)}
        if len(different) < LEAST_WORDS:
            numbers.append(-1)
            continue
        own = array("Q", sorted(different))
        number = known.setdefault(blake2b(own.tobytes(), digest_size=16).digest(), len(known))
        numbers.append(number)
        if number == len(counts):
            counts.append(len(own))
            words.extend(own)
    return (
        np.array(numbers, dtype=np.int64),
        _Words(np.array(words, dtype=np.uint64), np.array(counts, dtype=np.int64)),
    )


def _hashed(word: str, known: dict[str, int]) -> int:
    """Hash a word to 64 bits, of which datasketch's own hash takes the lower half."""
    found = known.get(word)
    if found is None:
        if len(known) >= _WORDS_REMEMBERED:
            known.clear()
        found = known[word] = int.from_bytes(sha1(word.encode("utf-8")).digest()[:8], "little")  # noqa: S324
    return found


def _bands(words: _Words) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield for each band one key of every text: equal where its smallest hashes are."""
    hashes = words.hashes.astype(np.uint32)
    permutations = MinHash(num_perm=_BANDS * _HASHES).permutations
    for band in np.split(permutations, _BANDS, axis=1):
        keys = np.zeros(len(words), dtype=np.uint64)
        for factor, summand in band.T:
            keys = keys * _MIX + _smallest(hashes * factor + summand, words.offsets[:-1])
        yield keys


def _smallest(values: npt.NDArray[np.uint32], starts: Numbers) -> npt.NDArray[np.uint64]:
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    return np.minimum.reduceat(values, starts).astype(np.uint64)
