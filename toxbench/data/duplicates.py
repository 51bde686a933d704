"""Search for rows with nearly equal texts.

Near copies are found with MinHash (Broder 1997): texts that agree in one of several bands of hashes
are candidates, whose sets of words are then compared exactly.
"""

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b, sha1

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from toxbench.data.groups import (
    DIGEST_BYTES,
    Numbers,
    group_ids,
    normalize_text,
    relabel_by_first_seen,
    run_starts,
)
from toxbench.data.table import TextDataset
from toxbench.util.arrays import Rows

Positions = npt.NDArray[np.int32]

MIN_SIMILARITY = 0.8
MIN_WORDS = 6
NEAR_COPY_DEFINITION = (
    f"two texts of at least {MIN_WORDS} different words each; of all words in the two, "
    f"{MIN_SIMILARITY:.0%} or more are in both (Jaccard), ignoring case, order and punctuation"
)

_WORD = re.compile(r"\w+")
# A pair at the threshold agrees in one of 25 bands of 5 hashes with a probability of 0.99995.
# Longer bands miss pairs; shorter bands propose mostly pairs that are not near copies.
_BANDS, _HASHES_PER_BAND = 25, 5
# Thousands of variants of one text would make millions of pairs. Texts in the smallest buckets are
# compared, because the words that put few texts together are rare ones.
_MAX_COMPARISONS = 1000
_MAX_CACHED_WORDS = 1_000_000
_TEXTS_PER_BLOCK = 20_000
_FIRST_CANDIDATES = 32  # most texts with a near copy have it among these
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # mixes the hashes of a band into one key


def first_rows(numbers: Numbers, rows: Rows) -> Numbers:
    """Return the first row of each number.

    Args:
        numbers: int64 ``[row]``, counted from 0; -1 for rows without a number.
        rows: the rows to search, in any order.

    Returns:
        int64 ``[number]``: the smallest of ``rows`` with that number, -1 if there is none.
    """
    first = np.full(numbers.max(initial=-1) + 1, -1, dtype=np.int64)
    rows = np.sort(rows[numbers[rows] >= 0])
    present, positions = np.unique(numbers[rows], return_index=True)
    first[present] = rows[positions]
    return first


def number_copies(comments: TextDataset) -> Numbers:
    """Number the texts of a table from 0, int64 ``[row]``.

    Equal and nearly equal texts, and those that a chain of such texts connects, get one number.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    texts = group_ids(map(normalize_text, comments.texts))
    rows = np.arange(len(texts))
    near = NearCopies(map(normalize_text, comments.texts)).find(rows, rows)
    pairs = np.array(near, dtype=np.int64).reshape(-1, 2)
    edges = (np.ones(len(pairs), np.int8), (texts[pairs[:, 0]], texts[pairs[:, 1]]))
    count = texts.max(initial=-1) + 1
    _, components = connected_components(coo_array(edges, shape=(count, count)), directed=False)
    numbers = components[texts].astype(np.int64)
    return relabel_by_first_seen(np.argsort(numbers, kind="stable"), numbers)


class NearCopies:
    """Index of texts that finds rows with nearly the same words.

    Texts of fewer than `MIN_WORDS` different words are never near copies.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Index the texts, ``[row]``, as `toxbench.data.groups.normalize_text` returns them."""
        self._numbers, self._words = _index_words(texts)
        self._bands = [_Buckets(keys) for keys in _band_keys(self._words)]

    def find(self, rows: Rows, candidates: Rows) -> list[tuple[int, int]]:
        """Return each of ``rows`` with a near copy in ``candidates``, and the first such copy."""
        first = first_rows(self._numbers, candidates)
        numbers = self._numbers[rows]
        queries = np.unique(numbers[numbers >= 0])
        copies = np.full(len(self._words) + 1, -1, dtype=np.int64)  # the last is of number -1
        bands = [band.restrict(first >= 0) for band in self._bands]
        for start in range(0, len(queries), _TEXTS_PER_BLOCK):
            block = queries[start : start + _TEXTS_PER_BLOCK]
            for number, proposed in zip(block.tolist(), _proposals(block, bands), strict=True):
                copies[number] = self._first_copy(number, proposed, first)
        pairs = zip(rows.tolist(), copies[numbers].tolist(), strict=True)
        return [(row, copy) for row, copy in pairs if copy >= 0]

    def _first_copy(self, number: int, proposed: Numbers, first: Numbers) -> int:
        """Return the first candidate row whose text is near, or -1."""
        equal = [number] if first[number] >= 0 else []
        numbers = np.concatenate([equal, proposed[: _MAX_COMPARISONS - len(equal)]])
        candidates = np.unique(numbers).astype(int)
        candidates = candidates[self._words.can_be_near(number, candidates)]
        candidates = candidates[np.argsort(first[candidates])]
        for block in np.split(candidates, [_FIRST_CANDIDATES]):
            near = block[self._words.similarities(number, block) >= MIN_SIMILARITY]
            if len(near):
                return int(first[near[0]])
        return -1


class _Words:
    """Sets of words of different texts, as sorted 64-bit hashes in one flat array.

    Attributes:
        hashes: uint64 ``[all words]``, text after text.
        counts: number of words of each text, int64 ``[text]``.
        offsets: int64 ``[text + 1]``; text i has ``hashes[offsets[i]:offsets[i + 1]]``.
    """

    def __init__(self, hashes: npt.NDArray[np.uint64], counts: Numbers) -> None:
        self.hashes = hashes
        self.counts = counts
        self.offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])

    def __len__(self) -> int:
        return len(self.counts)

    def can_be_near(self, number: int, candidates: Numbers) -> npt.NDArray[np.bool_]:
        """Return whether the numbers of words are close enough for `MIN_SIMILARITY`."""
        count, counts = self.counts[number], self.counts[candidates]
        return np.asarray(np.minimum(count, counts) / np.maximum(count, counts) >= MIN_SIMILARITY)

    def similarities(self, number: int, candidates: Numbers) -> npt.NDArray[np.float64]:
        """Return the Jaccard similarity of one text to each candidate, ``[candidate]``."""
        if not len(candidates):
            return np.empty(0)
        words = self.hashes[self.offsets[number] : self.offsets[number + 1]]
        counts = self.counts[candidates]
        starts = np.cumsum(counts) - counts
        indices = np.repeat(self.offsets[candidates] - starts, counts) + np.arange(counts.sum())
        candidate_words = self.hashes[indices]
        nearest = words[np.searchsorted(words, candidate_words).clip(max=len(words) - 1)]
        shared = np.add.reduceat(nearest == candidate_words, starts, dtype=np.int64)
        return np.asarray(shared / (len(words) + counts - shared))


class _Buckets:
    """Texts of one band grouped by key; a text with a unique key is in no bucket.

    Attributes:
        members: texts of all buckets, bucket after bucket.
        starts, ends: ``[text]``, the slice of ``members`` that is the text's bucket; both 0 if
            it has none.
    """

    def __init__(self, keys: npt.NDArray[np.uint64]) -> None:
        order = np.argsort(keys, kind="stable").astype(np.int32)
        starts = np.flatnonzero(run_starts(keys[order]))
        ends = np.append(starts, len(order))[1:]
        sizes = ends - starts
        is_shared = np.repeat(sizes > 1, sizes)
        member_counts = np.concatenate([[0], np.cumsum(is_shared)])
        self.members: Positions = order[is_shared]
        self.starts, self.ends = (np.zeros(len(order), dtype=np.int32) for _ in range(2))
        for bounds, positions in ((self.starts, starts), (self.ends, ends)):
            bounds[order] = np.where(is_shared, np.repeat(member_counts[positions], sizes), 0)

    def restrict(self, is_candidate: npt.NDArray[np.bool_]) -> "_CandidateBuckets":
        """Return the buckets with only the candidates as members, bool ``[text]``."""
        is_member = is_candidate[self.members]
        member_counts = np.concatenate([[0], np.cumsum(is_member)]).astype(np.int32)
        return _CandidateBuckets(self, self.members[is_member], member_counts)


class _CandidateBuckets:
    """Buckets of one band of which only the candidates are members."""

    def __init__(self, buckets: _Buckets, members: Positions, member_counts: Positions) -> None:
        """Store the parts.

        Args:
            buckets: with all texts.
            members: candidates of all buckets, bucket after bucket.
            member_counts: for each index into ``buckets.members``, the candidates before it.
        """
        self.members = members
        self._buckets = buckets
        self._member_counts = member_counts

    def sizes(self, numbers: Numbers) -> Positions:
        """Return the size of each text's bucket, including texts that are not candidates."""
        return np.asarray(self._buckets.ends[numbers] - self._buckets.starts[numbers])

    def bounds(self, numbers: Numbers) -> tuple[Positions, Positions]:
        """Return where each text's bucket starts and ends in ``members``."""
        starts, ends = self._buckets.starts[numbers], self._buckets.ends[numbers]
        return self._member_counts[starts], self._member_counts[ends]


def _proposals(numbers: Numbers, bands: Sequence[_CandidateBuckets]) -> Iterator[Numbers]:
    """Yield for each text the members of its buckets, smallest bucket first."""
    by_size = np.argsort([band.sizes(numbers) for band in bands], axis=0, kind="stable")
    starts, ends = np.array([band.bounds(numbers) for band in bands]).transpose(1, 2, 0)
    for order, start, end in zip(by_size.T.tolist(), starts.tolist(), ends.tolist(), strict=True):
        proposed: list[Positions] = [np.empty(0, dtype=np.int32)]
        budget = _MAX_COMPARISONS
        for band in order:
            if start[band] < end[band] and budget > 0:
                stop = min(end[band], start[band] + budget)
                proposed.append(bands[band].members[start[band] : stop])
                budget -= len(proposed[-1])
        yield np.concatenate(proposed).astype(np.int64)


def _index_words(texts: Iterable[str]) -> tuple[Numbers, _Words]:
    """Number texts by their sets of words; -1 for sets below `MIN_WORDS`."""
    word_hashes: dict[str, int] = {}
    numbers_by_digest: dict[bytes, int] = {}
    numbers, counts, words = array("q"), array("q"), array("Q")
    for text in texts:
        hashes = {_hash_word(word, word_hashes) for word in _WORD.findall(text)}
        if len(hashes) < MIN_WORDS:
            numbers.append(-1)
            continue
        ordered = array("Q", sorted(hashes))
        digest = blake2b(ordered.tobytes(), digest_size=DIGEST_BYTES).digest()
        number = numbers_by_digest.setdefault(digest, len(numbers_by_digest))
        numbers.append(number)
        if number == len(counts):
            counts.append(len(ordered))
            words.extend(ordered)
    return (
        np.array(numbers, dtype=np.int64),
        _Words(np.array(words, dtype=np.uint64), np.array(counts, dtype=np.int64)),
    )


def _hash_word(word: str, cache: dict[str, int]) -> int:
    """Hash a word to 64 bits; the lower 32 are the hash that datasketch uses."""
    hashed = cache.get(word)
    if hashed is None:
        if len(cache) >= _MAX_CACHED_WORDS:
            cache.clear()
        digest = sha1(word.encode("utf-8")).digest()  # noqa: S324
        hashed = cache[word] = int.from_bytes(digest[:8], "little")
    return hashed


def _band_keys(words: _Words) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield for each band one key per text, uint64 ``[text]``: a mix of the band's MinHashes."""
    hashes = words.hashes.astype(np.uint32)
    permutations = MinHash(num_perm=_BANDS * _HASHES_PER_BAND).permutations
    for band in np.split(permutations, _BANDS, axis=1):
        keys = np.zeros(len(words), dtype=np.uint64)
        for factor, summand in band.T:
            keys = keys * _MULTIPLIER + _minima(hashes * factor + summand, words.offsets[:-1])
        yield keys


def _minima(values: npt.NDArray[np.uint32], starts: Numbers) -> npt.NDArray[np.uint64]:
    """Return the minimum of each text's values, uint64 ``[text]``."""
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    return np.minimum.reduceat(values, starts).astype(np.uint64)
