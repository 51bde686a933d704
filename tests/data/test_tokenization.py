"""Tokens: what the tokenizer says row by row, made once."""

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


class Never:
    """A tokenizer that must not be asked."""

    pad_token_id = 0

    def __call__(self, text: list[str], **options: object) -> NoReturn:
        raise AssertionError("asked to tokenise again")


def rows(tokens: Tokens) -> list[list[int]]:
    return [row.tolist() for row in np.split(tokens.ids, tokens.offsets[1:-1])]


def same(first: Tokens, second: Tokens) -> bool:
    return rows(first) == rows(second) and (first.pad_id, first.cut.tolist()) == (
        second.pad_id,
        second.cut.tolist(),
    )


@pytest.mark.parametrize("max_length", [3, 7, 8, 9, 128])
def test_every_row_is_what_the_tokenizer_says(
    tokenizer: Any, tmp_path: Path, max_length: int
) -> None:
    tokens = tokenise(tokenizer, "tiny", TEXTS, max_length, tmp_path)
    expected = [tokenizer(t, truncation=True, max_length=max_length)["input_ids"] for t in TEXTS]
    assert rows(tokens) == expected
    assert tokens.lengths.tolist() == [len(row) for row in expected]
    assert tokens.pad_id == tokenizer.pad_token_id
    assert (tokens.ids.dtype, tokens.offsets.dtype) == (np.dtype("i4"), np.dtype("i8"))


@pytest.mark.parametrize("max_length", [3, 4, 7, 8, 9, 42, 43])
def test_only_rows_longer_than_max_length_are_cut(
    tokenizer: Any, tmp_path: Path, max_length: int
) -> None:
    tokens = tokenise(tokenizer, "tiny", TEXTS, max_length, tmp_path)
    whole = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    assert max_length != 8 or whole[3] == 8  # this row just fits
    assert tokens.cut.tolist() == [length > max_length for length in whole]


def test_a_second_call_asks_the_cache_alone(tokenizer: Any, tmp_path: Path) -> None:
    first = tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path / "new" / "folder")
    second = tokenise(Never(), "tiny", TEXTS, 8, tmp_path / "new" / "folder")
    assert same(first, second)


@pytest.mark.parametrize(
    ("identity", "texts", "max_length"),
    [
        ("other", TEXTS, 8),
        ("tiny", TEXTS, 9),
        ("tiny", TEXTS[::-1], 8),
        ("tiny", [*TEXTS, ""], 8),
        ("tiny", ["you foo", "lthank you again and again", *TEXTS[2:]], 8),
    ],
)
def test_other_input_is_not_answered_from_the_cache(
    tokenizer: Any, tmp_path: Path, identity: str, texts: list[str], max_length: int
) -> None:
    tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path)
    with pytest.raises(AssertionError, match="asked to tokenise again"):
        tokenise(Never(), identity, texts, max_length, tmp_path)


def flipped(data: bytes, at: int = 13) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flipped_at_the_end(data: bytes) -> bytes:
    return flipped(data, len(data) - 40)  # in what pads


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def other_version(data: bytes) -> bytes:
    return data.replace(b"toxtok02", b"toxtok99")


def longer(data: bytes) -> bytes:
    return data[:4] + data


@pytest.mark.parametrize(
    "damage", [flipped, flipped_at_the_end, halved, other_version, longer, lambda _: b""]
)
def test_a_damaged_cache_is_made_again(tokenizer: Any, tmp_path: Path, damage: Any) -> None:
    first = tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.unlink()  # the first tokens stay as they are: their file is mapped into memory
    path.write_bytes(damage(whole))
    assert same(first, tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path))
    assert path.read_bytes() == whole or same(first, tokenise(Never(), "tiny", TEXTS, 8, tmp_path))


def test_the_cache_may_be_deleted(tokenizer: Any, tmp_path: Path) -> None:
    first = tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path)
    (path,) = tmp_path.iterdir()
    os.remove(path)
    assert same(first, tokenise(tokenizer, "tiny", TEXTS, 8, tmp_path))
    assert path.is_file()


def test_more_texts_than_one_batch_keep_their_order(tmp_path: Path) -> None:
    class Counting:
        """Gives each text its number as only token."""

        pad_token_id = 5

        def __call__(self, text: list[str], **options: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [[int(one)] for one in text]}

    tokens = tokenise(Counting(), "counting", [str(n) for n in range(20_001)], 8, tmp_path)
    assert tokens.ids.tolist() == list(range(20_001))
    assert tokens.pad_id == 5
