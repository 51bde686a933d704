"""Tokens equal the tokenizer's output row by row, and are cached."""

import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from transformers import AutoTokenizer

from toxbench.data.tokenization import Tokens, tokenise

# Each word of the tiny vocabulary is one token; [CLS] and [SEP] come on top.
TEXTS = [
    "you fool",
    "thank you again and again",
    "",
    "film " * 6,
    "film " * 5,
    "film " * 40,
    "zq é",
]


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint)


class FailingTokenizer:
    """A tokenizer that must not be called."""

    pad_token_id = 0

    def __call__(self, text: list[str], **options: object) -> NoReturn:
        raise AssertionError("the tokenizer was called")


def rows(tokens: Tokens) -> list[list[int]]:
    return [row.tolist() for row in np.split(tokens.ids, tokens.offsets[1:-1])]


def content(tokens: Tokens) -> tuple[list[list[int]], int, list[int]]:
    return rows(tokens), tokens.pad_id, tokens.cut_tokens.tolist()


@pytest.mark.parametrize("max_length", [3, 7, 8, 9, 128])
def test_rows_equal_the_tokenizer_output(tokenizer: Any, tmp_path: Path, max_length: int) -> None:
    tokens = tokenise(tokenizer, "tiny", TEXTS, max_length, tmp_path)
    expected = [tokenizer(t, truncation=True, max_length=max_length)["input_ids"] for t in TEXTS]
    assert rows(tokens) == expected
    assert tokens.lengths.tolist() == [len(row) for row in expected]
    assert tokens.pad_id == tokenizer.pad_token_id
    assert (tokens.ids.dtype, tokens.offsets.dtype) == (np.dtype("i4"), np.dtype("i8"))


@pytest.mark.parametrize("max_length", [3, 4, 7, 8, 9, 42, 43])
def test_only_long_rows_are_truncated(tokenizer: Any, tmp_path: Path, max_length: int) -> None:
    tokens = tokenise(tokenizer, "tiny", TEXTS, max_length, tmp_path)
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    assert max_length != 8 or lengths[3] == 8  # this row just fits
    assert tokens.cut_tokens.tolist() == [max(0, length - max_length) for length in lengths]


def test_a_second_call_uses_the_cache(tokenizer: Any, tmp_path: Path) -> None:
    first = tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path / "new" / "folder")
    second = tokenise(FailingTokenizer(), "tiny", TEXTS, 8, tmp_path / "new" / "folder")
    assert content(first) == content(second)


@pytest.mark.parametrize(
    ("identity", "texts", "max_length"),
    [
        ("another", TEXTS, 8),
        ("tiny", TEXTS, 9),
        ("tiny", TEXTS[::-1], 8),
        ("tiny", [*TEXTS, ""], 8),
        ("tiny", ["you foo", "lthank you again and again", *TEXTS[2:]], 8),
    ],
)
def test_different_input_is_tokenised(
    tokenizer: Any, tmp_path: Path, identity: str, texts: list[str], max_length: int
) -> None:
    tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path)
    with pytest.raises(AssertionError, match="the tokenizer was called"):
        tokenise(FailingTokenizer(), identity, texts, max_length, tmp_path)


def flip_bit(data: bytes, at: int = 13) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flip_footer_bit(data: bytes) -> bytes:
    return flip_bit(data, len(data) - 40)  # in the pad id


def halve(data: bytes) -> bytes:
    return data[: len(data) // 2]


def change_version(data: bytes) -> bytes:
    return data.replace(b"toxtok", b"toxold")


def lengthen(data: bytes) -> bytes:
    return data[:4] + data


@pytest.mark.parametrize(
    "damage", [flip_bit, flip_footer_bit, halve, change_version, lengthen, lambda _: b""]
)
def test_a_damaged_cache_is_replaced(tokenizer: Any, tmp_path: Path, damage: Any) -> None:
    first = tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path)
    (path,) = tmp_path.iterdir()
    original = path.read_bytes()
    path.unlink()  # first.ids is a memory map of the file, which must not change
    path.write_bytes(damage(original))
    assert content(tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path)) == content(first)
    assert path.read_bytes() == original


def test_the_cache_may_be_deleted(tokenizer: Any, tmp_path: Path) -> None:
    first = tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path)
    (path,) = tmp_path.iterdir()
    os.remove(path)
    assert content(tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path)) == content(first)
    assert path.is_file()


def test_several_blocks_keep_their_order(tmp_path: Path) -> None:
    class NumberTokenizer:
        """Tokenises a number to a single token with that id."""

        pad_token_id = 5

        def __call__(self, text: list[str], **options: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [[int(number)] for number in text]}

    tokens = tokenise(NumberTokenizer(), "numbers", [str(n) for n in range(20_001)], 8, tmp_path)
    assert tokens.ids.tolist() == list(range(20_001))
    assert tokens.pad_id == 5
