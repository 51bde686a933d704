"""Tokens equal the tokenizer's output row by row, and are cached."""

import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from transformers import AutoTokenizer

from toxbench.data.tokenization import MAX_WINDOWS, Tokens, tokenise
from toxbench.settings import LongText
from toxbench.testing import train_tokenizer

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


def content(tokens: Tokens) -> tuple[list[list[int]], list[int], int, list[int]]:
    return rows(tokens), tokens.windows.tolist(), tokens.pad_id, tokens.cut_tokens.tolist()


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


@pytest.fixture(scope="module", params=["bert", "roberta"])
def trained_tokenizer(request: pytest.FixtureRequest) -> Any:
    return train_tokenizer(request.param)


LONG_TEXT = " ".join(f"word {number}" for number in range(30))


@pytest.mark.parametrize(("max_length", "head"), [(3, 0), (4, 1), (16, 4), (64, 16)])
def test_head_tail_reads_both_ends(
    trained_tokenizer: Any, tmp_path: Path, max_length: int, head: int
) -> None:
    texts = ["w", LONG_TEXT]
    tokens = tokenise(trained_tokenizer, "", texts, max_length, tmp_path, "head-tail")
    short, ids = trained_tokenizer(texts, add_special_tokens=False)["input_ids"]
    first, last = trained_tokenizer.cls_token_id, trained_tokenizer.sep_token_id
    room = max_length - 2
    both_ends = [*ids[:head], *ids[len(ids) - (room - head) :]]
    assert rows(tokens) == [[first, *short, last], [first, *both_ends, last]]
    assert tokens.windows.tolist() == [0, 1, 2]
    assert tokens.cut_tokens.tolist() == [0, len(ids) - room]


@pytest.mark.parametrize("max_length", [16, 17, 64])
def test_windows_overlap_by_a_quarter(
    trained_tokenizer: Any, tmp_path: Path, max_length: int
) -> None:
    tokens = tokenise(trained_tokenizer, "", ["w", LONG_TEXT], max_length, tmp_path, "windows")
    expected = trained_tokenizer(
        LONG_TEXT, truncation=True, max_length=max_length, stride=max_length // 4,
        return_overflowing_tokens=True,
    )["input_ids"]  # fmt: skip
    assert len(expected) > 1
    assert rows(tokens)[1:] == expected
    assert tokens.windows.tolist() == [0, 1, 1 + len(expected)]
    assert tokens.lengths.tolist() == [len(rows(tokens)[0]), sum(map(len, expected))]
    assert tokens.cut_tokens.tolist() == [0, 0]


def test_windows_of_a_row_are_limited(tokenizer: Any, tmp_path: Path) -> None:
    tokens = tokenise(tokenizer, "tiny", ["film " * 1000, "you"], 10, tmp_path, "windows")
    assert tokens.windows.tolist() == [0, MAX_WINDOWS, MAX_WINDOWS + 1]
    assert tokens.cut_tokens.tolist() == [1000 - (2 + 6 * MAX_WINDOWS), 0]


@pytest.mark.parametrize("long_text", ["head", "head-tail", "windows"])
def test_a_second_call_uses_the_cache(tokenizer: Any, tmp_path: Path, long_text: LongText) -> None:
    first = tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path / "new" / "folder", long_text)
    second = tokenise(FailingTokenizer(), "tiny", TEXTS, 8, tmp_path / "new" / "folder", long_text)
    assert content(first) == content(second)


@pytest.mark.parametrize(
    ("identity", "texts", "max_length", "long_text"),
    [
        ("another", TEXTS, 8, "head"),
        ("tiny", TEXTS, 9, "head"),
        ("tiny", TEXTS, 8, "windows"),
        ("tiny", TEXTS[::-1], 8, "head"),
        ("tiny", [*TEXTS, ""], 8, "head"),
        ("tiny", ["you foo", "lthank you again and again", *TEXTS[2:]], 8, "head"),
    ],
)
def test_different_input_is_tokenised(
    tokenizer: Any, tmp_path: Path, identity: str, texts: list[str], max_length: int,
    long_text: LongText,
) -> None:  # fmt: skip
    tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path)
    with pytest.raises(AssertionError, match="the tokenizer was called"):
        tokenise(FailingTokenizer(), identity, texts, max_length, tmp_path, long_text)


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
