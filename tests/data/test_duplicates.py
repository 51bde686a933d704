"""Near copies: planted ones are found, short texts and different ones are not."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toxbench.data.duplicates import LEAST_WORDS, SIMILARITY, NearCopies, first_rows

WORDS = [f"word{number}" for number in range(2000)]


def rows(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, dtype=np.int64)


def near(text: str, other: str) -> bool:
    return NearCopies([text, other]).among(rows(0), rows(1)) == [(0, 1)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(9, 60))
def test_a_text_with_one_other_word_is_found_whatever_the_seed(seed: int, length: int) -> None:
    draw = random.Random(seed)
    texts = [" ".join(draw.sample(WORDS, 20)) for _ in range(50)]
    planted = draw.sample(WORDS, length)
    texts[7] = " ".join(planted)
    texts[31] = " ".join([*draw.sample(planted[1:], length - 1), "otherwise"])
    copies = NearCopies(texts)
    assert copies.among(np.arange(25), np.arange(25, 50)) == [(7, 31)]
    assert copies.among(np.arange(25, 50), np.arange(25)) == [(31, 7)]


@pytest.mark.parametrize("shared", range(4, 12))
def test_the_threshold_is_where_the_definition_says(shared: int) -> None:
    text, other = WORDS[:10], [*WORDS[:shared], *WORDS[500 : 510 - shared]]
    similarity = len({*text} & {*other}) / len({*text} | {*other})
    assert near(" ".join(text), " ".join(other)) == (similarity >= SIMILARITY)


def test_order_repeats_and_punctuation_do_not_matter() -> None:
    assert near("one two three four five six!", "six, five five four... three (two) one")


def test_short_texts_are_never_near() -> None:
    text = " ".join(WORDS[: LEAST_WORDS - 1])
    assert not near(text, text)
    assert not near("lol", "lol lol lol lol lol lol lol lol")
    assert near(f"{text} more", f"{text} more")


def test_the_first_copy_is_named_and_only_among_the_rows_asked_for() -> None:
    text = " ".join(WORDS[:20])
    texts = [text, f"{text} a", "something else", f"{text} b", f"{text} c"]
    copies = NearCopies(texts)
    assert copies.among(rows(4, 2), rows(3, 1)) == [(4, 1)]
    assert copies.among(rows(0), rows(2)) == []
    assert copies.among(rows(), rows(1)) == copies.among(rows(1), rows()) == []


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_found_among_thousands_of_variants(seed: int) -> None:
    draw = random.Random(seed)
    variants = [" ".join([*WORDS[:14], *draw.sample(WORDS[20:], 4)]) for _ in range(2000)]
    texts = [f"{variants[n]} more" for n in range(0, 2000, 100)] + variants
    found = dict(NearCopies(texts).among(np.arange(20), np.arange(20, 2020)))
    assert found == {n: 20 + 100 * n for n in range(20)}


@pytest.mark.parametrize("texts", [[], ["lol"], ["\x00\x1b", "🤬 🤬 🤬"]])
def test_texts_without_words_are_no_problem(texts: list[str]) -> None:
    assert NearCopies(texts).among(np.arange(len(texts)), np.arange(len(texts))) == []


def test_first_rows_are_the_smallest_of_those_given() -> None:
    numbers = rows(0, 1, 1, -1, 0, 2)
    assert first_rows(numbers, rows(4, 2, 3, 1)).tolist() == [4, 1, -1]
    assert first_rows(numbers, rows()).tolist() == [-1, -1, -1]
