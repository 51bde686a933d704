"""Near copies: planted ones are found; short and different texts are not."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toxbench.data.duplicates import MIN_SIMILARITY, MIN_WORDS, NearCopies, first_rows

WORDS = [f"word{number}" for number in range(2000)]


def array(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, dtype=np.int64)


def is_near(text: str, candidate: str) -> bool:
    return NearCopies([text, candidate]).find(array(0), array(1)) == [(0, 1)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(9, 60))
def test_text_with_one_changed_word_matches(seed: int, length: int) -> None:
    rng = random.Random(seed)
    texts = [" ".join(rng.sample(WORDS, 20)) for _ in range(50)]
    planted = rng.sample(WORDS, length)
    texts[7] = " ".join(planted)
    texts[31] = " ".join([*rng.sample(planted[1:], length - 1), "otherwise"])
    copies = NearCopies(texts)
    assert copies.find(np.arange(25), np.arange(25, 50)) == [(7, 31)]
    assert copies.find(np.arange(25, 50), np.arange(25)) == [(31, 7)]


@pytest.mark.parametrize("shared", range(4, 12))
def test_similarity_is_compared_with_the_threshold(shared: int) -> None:
    first, second = WORDS[:10], [*WORDS[:shared], *WORDS[500 : 510 - shared]]
    similarity = len({*first} & {*second}) / len({*first} | {*second})
    assert is_near(" ".join(first), " ".join(second)) == (similarity >= MIN_SIMILARITY)


def test_order_repeats_and_punctuation_are_ignored() -> None:
    assert is_near("one two three four five six!", "six, five five four... three (two) one")


def test_short_texts_are_never_near_copies() -> None:
    text = " ".join(WORDS[: MIN_WORDS - 1])
    assert not is_near(text, text)
    assert not is_near("lol", "lol lol lol lol lol lol lol lol")
    assert is_near(f"{text} more", f"{text} more")


def test_the_first_copy_among_candidates_is_returned() -> None:
    text = " ".join(WORDS[:20])
    texts = [text, f"{text} a", "something else", f"{text} b", f"{text} c"]
    copies = NearCopies(texts)
    assert copies.find(array(4, 2), array(3, 1)) == [(4, 1)]
    assert copies.find(array(0), array(2)) == []
    assert copies.find(array(), array(1)) == copies.find(array(1), array()) == []


@pytest.mark.parametrize("seed", range(5))
def test_copies_match_among_thousands_of_variants(seed: int) -> None:
    rng = random.Random(seed)
    variants = [" ".join([*WORDS[:14], *rng.sample(WORDS[20:], 4)]) for _ in range(2000)]
    texts = [f"{variants[n]} more" for n in range(0, 2000, 100)] + variants
    copies = dict(NearCopies(texts).find(np.arange(20), np.arange(20, 2020)))
    assert copies == {n: 20 + 100 * n for n in range(20)}


@pytest.mark.parametrize("texts", [[], ["lol"], ["\x00\x1b", "🤬 🤬 🤬"]])
def test_texts_without_words_have_no_copies(texts: list[str]) -> None:
    assert NearCopies(texts).find(np.arange(len(texts)), np.arange(len(texts))) == []


def test_first_rows_are_the_smallest_matching_rows() -> None:
    numbers = array(0, 1, 1, -1, 0, 2)
    assert first_rows(numbers, array(4, 2, 3, 1)).tolist() == [4, 1, -1]
    assert first_rows(numbers, array()).tolist() == [-1, -1, -1]
