"""Comments tokenised once into flat arrays, and cached on disk by what went in."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from toxbench.atomic import write_atomically

_TEXTS_AT_ONCE = 10_000


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    pad_token_id: int | None

    def __call__(self, text: list[str], **options: object) -> dict[str, list[list[int]]]: ...


@dataclass(frozen=True, eq=False)
class Tokens:
    """All rows' token ids, end to end.

    Attributes:
        ids: int32, shape ``[all tokens]``.
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


def tokenise(
    tokenizer: Tokenizer, identity: str, texts: Sequence[str], max_length: int, cache: Path
) -> Tokens:
    """Return the tokens of all texts, from the cache where they are there already.

    Args:
        tokenizer: a Hugging Face tokenizer with a pad token.
        identity: what tells this tokenizer from every other one, such as a hash of its files.
        texts: in row order.
        max_length: longer texts are cut to this many tokens, special tokens included.
        cache: folder that may be deleted at any time.
    """
    path = cache / f"{_key(identity, texts, max_length)}.npz"
    stored = _read(path)
    if stored is None:
        stored = tokens_of(tokenizer, texts, max_length)
        _write(path, stored)
    return stored


def _key(identity: str, texts: Sequence[str], max_length: int) -> str:
    digest = hashlib.sha256(f"1:{identity}:{max_length}:".encode())
    for text in texts:
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def tokens_of(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Tokens:
    """Return the tokens of some texts, as `tokenise`, without a cache."""
    pieces: list[npt.NDArray[np.int32]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        rows = _rows(tokenizer, texts[start : start + _TEXTS_AT_ONCE], max_length)
        lengths.extend(len(row) for row in rows)
        pieces.extend(np.asarray(row, dtype=np.int32) for row in rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    cut = np.asarray(lengths) == max_length
    # A row of exactly max_length tokens may just fit: only a longer limit tells.
    full = np.flatnonzero(cut)
    if len(full):
        longer = _rows(tokenizer, [texts[row] for row in full.tolist()], max_length + 1)
        cut[full] = [len(row) > max_length for row in longer]
    return Tokens(np.concatenate(pieces), offsets, tokenizer.pad_token_id or 0, cut)


def _rows(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[list[int]]:
    return tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]


def _read(path: Path) -> Tokens | None:
    """Return the cached tokens; None where there are none or the file is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return Tokens(stored["ids"], stored["offsets"], int(stored["pad_id"]), stored["cut"])
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
        return None


def _write(path: Path, tokens: Tokens) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        ids=tokens.ids,
        offsets=tokens.offsets,
        pad_id=np.int64(tokens.pad_id),
        cut=tokens.cut,
    )
    write_atomically(path, buffer.getvalue())
