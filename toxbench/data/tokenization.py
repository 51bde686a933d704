"""Tokenisation of comments into flat arrays, with a cache on disk."""

import hashlib
import io
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, takewhile
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from toxbench.errors import StorageError
from toxbench.settings import LongText
from toxbench.util.atomic import PRIVATE_MODE, atomic_file, make_folder, remove_leftovers
from toxbench.util.content import update_with_texts

_TEXTS_PER_BLOCK = 10_000
_BYTES_PER_BLOCK = 1 << 22
# A cache file holds the arrays ids, offsets, windows and cut_tokens one after the other, and then
# this footer: file format, number of tokens, windows and rows, pad id, checksum. It is at the end
# because the numbers are known only after the arrays are written.
_FOOTER = struct.Struct("<8sQQQq32s")
_MAGIC = b"toxtok04"
_UNLIMITED = 1 << 30  # max_length of a complete row
MAX_WINDOWS = 16  # of a row: as many as a batch has rows by default


class Tokenizer(Protocol):
    """The part of the interface of a Hugging Face tokenizer that is used here."""

    pad_token_id: int | None

    def __call__(self, text: list[str], **options: object) -> dict[str, list[list[int]]]: ...


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of all rows in one flat array.

    A row has one window, or several that overlap (``long_text = windows``). A window is what the
    module reads at once, with special tokens.

    Attributes:
        ids: int32 ``[all tokens]``; a cached array is mapped from its file, so that pages are
            loaded when they are used.
        offsets: int64 ``[window + 1]``; window i is ``ids[offsets[i]:offsets[i + 1]]``.
        windows: int64 ``[row + 1]``; row i has windows ``windows[i]`` to ``windows[i + 1] - 1``.
        pad_id: token id for padding batches.
        cut_tokens: int32 ``[row]``, number of tokens of the row that are left out.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int64]
    pad_id: int
    cut_tokens: npt.NDArray[np.int32]

    @property
    def truncated_share(self) -> float:
        """Share of the rows of which tokens are left out, in [0, 1]."""
        return float((self.cut_tokens > 0).mean())

    @property
    def cut_share(self) -> float:
        """Share of all tokens that are left out, in [0, 1); each window's tokens count."""
        cut = int(self.cut_tokens.sum(dtype=np.int64))
        return cut / max(1, cut + int(self.offsets[-1]))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens in the windows of each row, int64 ``[row]``."""
        return np.diff(self.offsets[self.windows])


def tokenise(
    tokenizer: Tokenizer,
    identity: str,
    texts: Sequence[str],
    max_length: int,
    cache: Path,
    long_text: LongText = "head",
) -> Tokens:
    """Return the tokens of all texts, from the cache if they are in it.

    New tokens are written to disk block by block, so that memory use does not grow with the table.

    Args:
        tokenizer: a Hugging Face tokenizer with a pad token.
        identity: identifies the tokenizer in the cache key, as `tokenizer_state` does.
        texts: in row order.
        max_length: most tokens of a window, special tokens included.
        cache: folder that may be deleted at any time.
        long_text: windows of a longer text. head: one, as the tokenizer truncates. head-tail: one
            with the first ``max_length // 4`` tokens and the last ones that fit (Sun et al. 2019,
            arXiv:1905.05583: 128 and 382 of 510). windows: at most `MAX_WINDOWS`, each of which
            repeats the last ``max_length // 4`` tokens of the one before (Pappagari et al. 2019,
            arXiv:1910.10781: 50 of 200).

    Raises:
        StorageError: the cache cannot be written.
    """
    path = cache / f"{_cache_key(identity, texts, max_length, long_text)}.tokens"
    tokens = _read(path)
    if tokens is None:
        remove_leftovers(cache)
        with _lock(path, len(texts)):
            tokens = _read(path)  # another process may have written it in the meantime
            if tokens is None:
                with atomic_file(path, PRIVATE_MODE) as file:
                    _write(file, tokenizer, texts, max_length, long_text)
                tokens = _read(path)
    if tokens is None:
        raise StorageError(
            f"{path} was written but cannot be read back unchanged; check that disk, or name "
            "another folder with TOXBENCH_CACHE, and start the same command again"
        )
    return tokens


def tokenizer_state(tokenizer: object, folder: Path) -> str | None:
    """Return a hash of a tokenizer's class and whole state; None if it cannot be serialised.

    Args:
        tokenizer: any object; it is not changed.
        folder: that it was read from. Its path is not part of the state.
    """
    data = io.BytesIO()
    try:
        _StatePickler(data, folder).dump(tokenizer)
    except Exception:  # noqa: BLE001 - the class of a plugin may raise anything
        return None
    return hashlib.sha256(data.getvalue()).hexdigest()


class _StatePickler(ForkingPickler):
    """Writes a pickle, which is hashed and never read, without the path of a folder."""

    def __init__(self, file: BinaryIO, folder: Path) -> None:
        super().__init__(file, 5)
        self._path = str(folder)

    def persistent_id(self, value: object) -> str | None:
        """Return what replaces a value: a text without the path, or None for no replacement."""
        if isinstance(value, str) and self._path in value:
            return value.replace(self._path, "")
        return None


def tokenise_uncached(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, long_text: LongText = "head"
) -> Tokens:
    """Return the tokens of some texts without a cache; otherwise as `tokenise`."""
    ids, lengths, counts, cut_tokens = zip(
        *_blocks(tokenizer, texts, max_length, long_text), strict=True
    )
    return Tokens(
        ids=np.concatenate(ids),
        offsets=_offsets(np.concatenate(lengths)),
        windows=_offsets(np.concatenate(counts)),
        pad_id=tokenizer.pad_token_id or 0,
        cut_tokens=np.concatenate(cut_tokens),
    )


def window_starts(length: int, room: int, overlap: int) -> range:
    """Return where the windows of a row start, the special tokens of the row not counted.

    Args:
        length: number of tokens of the row.
        room: most tokens of a window.
        overlap: number of tokens that a window shares with the one before.
    """
    return range(0, max(1, length - overlap), max(1, room - overlap))[:MAX_WINDOWS]


class _Block(NamedTuple):
    """Some rows: ids ``[all tokens]``, lengths ``[window]``, window counts and cuts ``[row]``."""

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    cut_tokens: npt.NDArray[np.int32]


def _blocks(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, long_text: LongText
) -> Iterator[_Block]:
    """Tokenise block by block; without texts there is one empty block."""
    for start in range(0, max(1, len(texts)), _TEXTS_PER_BLOCK):
        block = list(texts[start : start + _TEXTS_PER_BLOCK])
        yield _tokenise_block(tokenizer, block, max_length, long_text)


def _tokenise_block(
    tokenizer: Tokenizer, texts: list[str], max_length: int, long_text: LongText
) -> _Block:
    rows = [[ids] for ids in _token_ids(tokenizer, texts, max_length)]  # [row][window][token]
    cut_tokens = np.zeros(len(rows), dtype=np.int32)
    # A row of exactly max_length tokens may be complete: tokenise it again without a limit.
    full = [row for row, (ids,) in enumerate(rows) if len(ids) == max_length]
    if full:
        complete = _token_ids(tokenizer, [texts[row] for row in full], _UNLIMITED)
        cut_tokens[full] = [len(ids) - max_length for ids in complete]
        if long_text != "head":
            special = _count_special_tokens(tokenizer)
            for row, ids in zip(full, complete, strict=True):
                rows[row], cut_tokens[row] = _cut(ids, special, max_length, long_text)
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    windows = list(chain.from_iterable(rows))
    lengths = np.fromiter(map(len, windows), dtype=np.int64, count=len(windows))
    tokens = chain.from_iterable(windows)
    flat = np.fromiter(tokens, dtype=np.int32, count=int(lengths.sum()))
    return _Block(flat, lengths, counts, cut_tokens)


def _cut(
    ids: list[int], special: tuple[int, int], max_length: int, long_text: LongText
) -> tuple[list[list[int]], int]:
    """Return the windows of a complete row, and the number of its tokens that they leave out."""
    first, last = special[0], len(ids) - special[1]
    before, tokens, after = ids[:first], ids[first:last], ids[last:]
    room, quarter = max_length - sum(special), max_length // 4
    if long_text == "head-tail":
        tail = tokens[len(tokens) - (room - quarter) :]
        return [before + tokens[:quarter] + tail + after], len(tokens) - room
    starts = window_starts(len(tokens), room, quarter)
    windows = [before + tokens[start : start + room] + after for start in starts]
    return windows, max(0, len(tokens) - starts[-1] - room)


def _count_special_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    """Count the tokens that the tokenizer adds before and after those of a text."""
    empty, letter = _token_ids(tokenizer, ["", "a"], _UNLIMITED)
    before = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(empty, letter, strict=False))))
    return before, len(empty) - before


def _token_ids(tokenizer: Tokenizer, texts: list[str], max_length: int) -> list[list[int]]:
    """Return the token ids of each text; fast tokenizers run in threads on all cores."""
    if not texts:
        return []
    options: dict[str, bool] = {}
    if hasattr(tokenizer, "model_input_names"):  # only Hugging Face tokenizers know these options
        # Masks can be computed from the lengths, and would cost a quarter of the time.
        options = {"return_attention_mask": False, "return_token_type_ids": False}
    return tokenizer(texts, truncation=True, max_length=max_length, **options)["input_ids"]


def _offsets(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


def _cache_key(identity: str, texts: Sequence[str], max_length: int, long_text: LongText) -> str:
    user = os.getuid() if os.name == "posix" else ""  # no other user may read the file
    digest = hashlib.sha256(f"3:{identity}:{max_length}:{long_text}:{user}:".encode())
    update_with_texts(digest, texts)
    return digest.hexdigest()


def _lock(path: Path, row_count: int) -> AbstractContextManager[object]:
    """Return a lock against tokenising a large table twice; for few rows it is not worth it."""
    if row_count <= _TEXTS_PER_BLOCK:
        return nullcontext()
    make_folder(path.parent)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _write(
    file: BinaryIO,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    max_length: int,
    long_text: LongText,
) -> None:
    """Write a cache file; only the lengths of all windows are kept in memory, not their ids."""
    digest = hashlib.sha256()

    def write_array(array: npt.NDArray[np.generic], dtype: str) -> None:
        data = np.ascontiguousarray(array, dtype=dtype).tobytes()
        digest.update(data)
        file.write(data)

    lengths, counts, cut_tokens = [], [], []
    for block in _blocks(tokenizer, texts, max_length, long_text):
        write_array(block.ids, "<i4")
        lengths.append(block.lengths)
        counts.append(block.counts)
        cut_tokens.append(block.cut_tokens)
    offsets, windows = _offsets(np.concatenate(lengths)), _offsets(np.concatenate(counts))
    write_array(offsets, "<i8")
    write_array(windows, "<i8")
    write_array(np.concatenate(cut_tokens), "<i4")
    footer = (_MAGIC, offsets[-1], windows[-1], len(texts), tokenizer.pad_token_id or 0)
    digest.update(_FOOTER.pack(*footer, b""))
    file.write(_FOOTER.pack(*footer, digest.digest()))


def _read(path: Path) -> Tokens | None:
    """Return the cached tokens; None if the file is missing or damaged."""
    try:
        with path.open("rb") as file:
            footer = _read_footer(file)
            if footer is None:
                return None
            count, window_count, row_count, pad_id = footer
            # Copy on write: the array is never written, but torch warns about read-only arrays.
            ids = np.memmap(file, "<i4", "c", shape=(count,)) if count else np.empty(0, "<i4")
            file.seek(4 * count)
            offsets = np.fromfile(file, "<i8", window_count + 1)
            windows = np.fromfile(file, "<i8", row_count + 1)
            return Tokens(ids, offsets, windows, pad_id, np.fromfile(file, "<i4", row_count))
    except OSError:
        return None


def _read_footer(file: BinaryIO) -> tuple[int, int, int, int] | None:
    """Return the number of tokens, windows and rows, and the pad id; None if damaged."""
    size = file.seek(0, 2)
    if size < _FOOTER.size:
        return None
    file.seek(-_FOOTER.size, 2)
    magic, count, window_count, row_count, pad_id, checksum = _FOOTER.unpack(file.read())
    bytes_of_arrays = 4 * count + 8 * (window_count + 1) + 8 * (row_count + 1) + 4 * row_count
    if magic != _MAGIC or bytes_of_arrays + _FOOTER.size != size:
        return None
    file.seek(0)
    digest, remaining = hashlib.sha256(), size - _FOOTER.size
    while remaining:
        data = file.read(min(remaining, _BYTES_PER_BLOCK))
        digest.update(data)
        remaining -= len(data)
    digest.update(_FOOTER.pack(magic, count, window_count, row_count, pad_id, b""))
    return (count, window_count, row_count, pad_id) if digest.digest() == checksum else None
