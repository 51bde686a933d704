"""Comments tokenised once into flat arrays, and cached on disk by what went in."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from toxbench.errors import StorageError
from toxbench.util.atomic import atomic_file, make_folder

_TEXTS_AT_ONCE = 10_000
_BYTES_AT_ONCE = 1 << 22
# A cached file is ids, offsets and cut, one after the other, and then this: what they are, how
# many tokens and rows there are, what pads, and a checksum. It is last, because it is known last.
_END = struct.Struct("<8sQQq32s")
_MAGIC = b"toxtok02"


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    pad_token_id: int | None

    def __call__(self, text: list[str], **options: object) -> dict[str, list[list[int]]]: ...


@dataclass(frozen=True, eq=False)
class Tokens:
    """All rows' token ids, end to end.

    Attributes:
        ids: int32, shape ``[all tokens]``; of a cached table they stay on the disk, and what is
            looked at is in memory for as long as there is room.
        offsets: int64, shape ``[row + 1]``; row i is ``ids[offsets[i]:offsets[i + 1]]``.
        pad_id: what fills a batch up.
        cut: bool, shape ``[row]``: the row was longer than max_length.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    pad_id: int
    cut: npt.NDArray[np.bool_]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, special tokens included, shape ``[row]``."""
        return np.diff(self.offsets)


class _Some(NamedTuple):
    """Some rows, tokenised."""

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    cut: npt.NDArray[np.bool_]


def tokenise(
    tokenizer: Tokenizer, identity: str, texts: Sequence[str], max_length: int, cache: Path
) -> Tokens:
    """Return the tokens of all texts, from the cache where they are there already.

    Tokens go to the disk block by block, so that memory does not grow with the table.

    Args:
        tokenizer: a Hugging Face tokenizer with a pad token.
        identity: what tells this tokenizer from every other one, such as a hash of its files.
        texts: in row order.
        max_length: longer texts are cut to this many tokens, special tokens included.
        cache: folder that may be deleted at any time.

    Raises:
        StorageError: the cache cannot be written.
    """
    path = cache / f"{_key(identity, texts, max_length)}.tokens"
    stored = _read(path)
    if stored is None:
        with _by_one_process(path, len(texts)):
            stored = _read(path)  # of the process that was waited for
            if stored is None:
                with atomic_file(path) as file:
                    _write(file, tokenizer, texts, max_length)
                stored = _read(path)
    if stored is None:
        raise StorageError(
            f"{path} is not as it was just written; check that disk, or name another folder with "
            "TOXBENCH_CACHE, and start the same command again"
        )
    return stored


def _by_one_process(path: Path, rows: int) -> AbstractContextManager[object]:
    """Let other workers wait where tokenising takes long; for few rows a lock is not worth it."""
    if rows <= _TEXTS_AT_ONCE:
        return nullcontext()
    make_folder(path.parent)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _key(identity: str, texts: Sequence[str], max_length: int) -> str:
    digest = hashlib.sha256(f"2:{identity}:{max_length}:".encode())
    for text in texts:
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def tokens_of(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Tokens:
    """Return the tokens of some texts, as `tokenise`, without a cache."""
    ids, lengths, cut = zip(*_blocks(tokenizer, texts, max_length), strict=True)
    return Tokens(
        ids=np.concatenate(ids),
        offsets=_offsets(np.concatenate(lengths)),
        pad_id=tokenizer.pad_token_id or 0,
        cut=np.concatenate(cut),
    )


def _blocks(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Iterator[_Some]:
    """Tokenise block by block; there is one block at least."""
    for start in range(0, max(1, len(texts)), _TEXTS_AT_ONCE):
        yield _some(tokenizer, list(texts[start : start + _TEXTS_AT_ONCE]), max_length)


def _some(tokenizer: Tokenizer, texts: list[str], max_length: int) -> _Some:
    rows = _rows(tokenizer, texts, max_length)
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
    cut = lengths == max_length
    # A row of exactly max_length tokens may just fit: only a longer limit tells.
    full = np.flatnonzero(cut)
    if len(full):
        longer = _rows(tokenizer, [texts[row] for row in full.tolist()], max_length + 1)
        cut[full] = [len(row) > max_length for row in longer]
    return _Some(ids, lengths, cut)


def _rows(tokenizer: Tokenizer, texts: list[str], max_length: int) -> list[list[int]]:
    """Return each text's ids; fast tokenizers work on all cores here, with threads of their own."""
    if not texts:
        return []
    only_ids: dict[str, bool] = {}
    if hasattr(tokenizer, "model_input_names"):  # Hugging Face's own; others need not know these
        # Masks follow from the lengths, and cost a quarter of the time.
        only_ids = {"return_attention_mask": False, "return_token_type_ids": False}
    return tokenizer(texts, truncation=True, max_length=max_length, **only_ids)["input_ids"]


def _offsets(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


def _write(file: BinaryIO, tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> None:
    """Write a cached file; of all rows, only lengths are held."""
    digest = hashlib.sha256()

    def put(array: npt.NDArray[np.generic], kind: str) -> None:
        data = np.ascontiguousarray(array, dtype=kind).tobytes()
        digest.update(data)
        file.write(data)

    lengths, cut, count = [], [], 0
    for some in _blocks(tokenizer, texts, max_length):
        put(some.ids, "<i4")
        lengths.append(some.lengths)
        cut.append(some.cut)
        count += len(some.ids)
    put(_offsets(np.concatenate(lengths)), "<i8")
    put(np.concatenate(cut), "?")
    pad = tokenizer.pad_token_id or 0
    digest.update(_END.pack(_MAGIC, count, len(texts), pad, b""))
    file.write(_END.pack(_MAGIC, count, len(texts), pad, digest.digest()))


def _read(path: Path) -> Tokens | None:
    """Return the cached tokens; None where there are none or the file is damaged."""
    try:
        with path.open("rb") as file:
            found = _checked_end(file)
            if found is None:
                return None
            count, rows, pad = found
            # Copy on write: nothing is ever written, but torch warns of arrays that cannot be.
            ids = np.memmap(file, "<i4", "c", shape=(count,)) if count else np.empty(0, "<i4")
            file.seek(4 * count)
            offsets = np.fromfile(file, "<i8", rows + 1)
            return Tokens(ids, offsets, pad, np.fromfile(file, "?", rows))
    except OSError:
        return None


def _checked_end(file: BinaryIO) -> tuple[int, int, int] | None:
    """Return tokens, rows and the pad id; None where the file is not as it was written."""
    size = file.seek(0, 2)
    if size < _END.size:
        return None
    file.seek(-_END.size, 2)
    magic, count, rows, pad, checksum = _END.unpack(file.read())
    if magic != _MAGIC or 4 * count + 8 * (rows + 1) + rows + _END.size != size:
        return None
    file.seek(0)
    digest, left = hashlib.sha256(), size - _END.size
    while left:
        data = file.read(min(left, _BYTES_AT_ONCE))
        digest.update(data)
        left -= len(data)
    digest.update(_END.pack(magic, count, rows, pad, b""))
    return (count, rows, pad) if digest.digest() == checksum else None
