"""Texts of a large table: a sequence like a tuple of them, whatever is done to it."""

import pickle
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxbench.data.duplicates import numbered
from toxbench.data.text_array import Strings, taken

TEXTS = ("", "a", "ünter 🎬", "two\nlines\x00", "a", "last")
EDGES = (None, -7, -6, -2, 0, 1, 3, 6, 7)


def test_it_is_the_sequence_that_it_was_made_of() -> None:
    strings = Strings.of(iter(TEXTS))
    assert strings == TEXTS
    assert (len(strings), strings[0], strings[-1], list(strings)) == (6, "", "last", [*TEXTS])
    assert "a" in strings
    assert strings.index("a") == 1
    with pytest.raises(IndexError):
        strings[6]


@pytest.mark.parametrize("step", [None, 2, -1, -3])
def test_slices_are_those_of_a_tuple(step: int | None) -> None:
    strings = Strings.of(TEXTS)
    for start, stop in product(EDGES, EDGES):
        assert strings[start:stop:step] == TEXTS[start:stop:step]
        assert strings[1:5][start:stop:step] == TEXTS[1:5][start:stop:step]


@pytest.mark.parametrize(
    "other", [(*TEXTS, "more"), TEXTS[:-1], TEXTS[::-1], (*TEXTS[:-1], None), "aaaaaa", 6]
)
def test_it_is_not_equal_to_anything_else(other: object) -> None:
    assert Strings.of(TEXTS) != other


@pytest.mark.parametrize("values", [TEXTS, Strings.of(TEXTS), Strings.of(("x", *TEXTS))[1:]])
def test_rows_are_taken_in_their_order(values: Strings[str]) -> None:
    assert taken(values, np.array([5, 0, 1, 1])) == ("last", "", "a", "a")
    assert taken(values, np.array([], dtype=np.int64)) == ()


def test_what_is_missing_is_none() -> None:
    column = pd.Series(["a", None, ""], dtype="str")
    strings: Strings[str | None] = Strings.of_column(column)
    assert strings == ("a", None, "")
    assert taken(strings, np.array([1, 2])) == (None, "")


@pytest.mark.parametrize("strings", [Strings.of(TEXTS), Strings.of(TEXTS)[2:5], Strings.of(())])
def test_copies_are_equal(strings: Strings[str]) -> None:
    assert pickle.loads(pickle.dumps(strings)) == strings  # noqa: S301 - made here
    assert Strings.from_flat(*strings.flat) == strings


@pytest.mark.parametrize(
    ("data", "ends"),
    [(b"ab", [1, 3]), (b"ab", [2, 1]), (b"\xff\xff", [1, 2]), (b"ab", [-1, 2])],
)
def test_bytes_that_are_no_texts_are_refused(data: bytes, ends: list[int]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - in pyarrow's words
        Strings.from_flat(np.frombuffer(data, np.uint8), np.array(ends, dtype=np.int64))


def test_nothing_of_a_comment_is_in_its_description() -> None:
    assert "secret" not in repr(Strings.of(["a secret"]))


@given(st.lists(st.none() | st.text(alphabet="ab\x00", max_size=3)))
def test_equal_texts_are_numbered_alike_in_the_order_of_the_first(values: list[str | None]) -> None:
    seen: dict[str, int] = {}
    expected = [-1 if value is None else seen.setdefault(value, len(seen)) for value in values]
    assert numbered(values).tolist() == expected
