"""Texts of a large table: a sequence like a tuple of them, whatever is done to it."""

import pickle
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxbench.data.duplicates import group_ids
from toxbench.data.text_array import TextArray, take_rows

TEXTS = ("", "a", "ünter 🎬", "two\nlines\x00", "a", "last")
EDGES = (None, -7, -6, -2, 0, 1, 3, 6, 7)


def test_it_is_the_sequence_that_it_was_made_of() -> None:
    strings = TextArray.of(iter(TEXTS))
    assert strings == TEXTS
    assert (len(strings), strings[0], strings[-1], list(strings)) == (6, "", "last", [*TEXTS])
    assert "a" in strings
    assert strings.index("a") == 1
    with pytest.raises(IndexError):
        strings[6]


@pytest.mark.parametrize("step", [None, 2, -1, -3])
def test_slices_are_those_of_a_tuple(step: int | None) -> None:
    strings = TextArray.of(TEXTS)
    for start, stop in product(EDGES, EDGES):
        assert strings[start:stop:step] == TEXTS[start:stop:step]
        assert strings[1:5][start:stop:step] == TEXTS[1:5][start:stop:step]


@pytest.mark.parametrize(
    "other", [(*TEXTS, "more"), TEXTS[:-1], TEXTS[::-1], (*TEXTS[:-1], None), "aaaaaa", 6]
)
def test_it_is_not_equal_to_anything_else(other: object) -> None:
    assert TextArray.of(TEXTS) != other


@pytest.mark.parametrize("values", [TEXTS, TextArray.of(TEXTS), TextArray.of(("x", *TEXTS))[1:]])
def test_rows_are_taken_in_their_order(values: TextArray[str]) -> None:
    assert take_rows(values, np.array([5, 0, 1, 1])) == ("last", "", "a", "a")
    assert take_rows(values, np.array([], dtype=np.int64)) == ()


def test_what_is_missing_is_none() -> None:
    column = pd.Series(["a", None, ""], dtype="str")
    strings: TextArray[str | None] = TextArray.of_column(column)
    assert strings == ("a", None, "")
    assert take_rows(strings, np.array([1, 2])) == (None, "")


@pytest.mark.parametrize(
    "strings", [TextArray.of(TEXTS), TextArray.of(TEXTS)[2:5], TextArray.of(())]
)
def test_copies_are_equal(strings: TextArray[str]) -> None:
    assert pickle.loads(pickle.dumps(strings)) == strings  # noqa: S301 - made here
    assert TextArray.from_flat(*strings.flat) == strings


@pytest.mark.parametrize(
    ("data", "ends"),
    [(b"ab", [1, 3]), (b"ab", [2, 1]), (b"\xff\xff", [1, 2]), (b"ab", [-1, 2])],
)
def test_bytes_that_are_no_texts_are_refused(data: bytes, ends: list[int]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - in pyarrow's words
        TextArray.from_flat(np.frombuffer(data, np.uint8), np.array(ends, dtype=np.int64))


def test_nothing_of_a_comment_is_in_its_description() -> None:
    assert "secret" not in repr(TextArray.of(["a secret"]))


@given(st.lists(st.none() | st.text(alphabet="ab\x00", max_size=3)))
def test_group_ids_follow_first_occurrence(
    values: list[str | None],
) -> None:
    seen: dict[str, int] = {}
    expected = [-1 if value is None else seen.setdefault(value, len(seen)) for value in values]
    assert group_ids(values).tolist() == expected
