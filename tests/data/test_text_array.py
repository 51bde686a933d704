"""A text array behaves like a tuple of its texts."""

import pickle
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxbench.data.groups import group_ids
from toxbench.data.text_array import TextArray, take_rows

TEXTS = ("", "a", "ünter 🎬", "two\nlines\x00", "a", "last")
EDGES = (None, -7, -6, -2, 0, 1, 3, 6, 7)


def test_an_array_equals_its_texts() -> None:
    array = TextArray.from_texts(iter(TEXTS))
    assert array == TEXTS
    assert (len(array), array[0], array[-1], list(array)) == (6, "", "last", [*TEXTS])
    assert "a" in array
    assert array.index("a") == 1
    with pytest.raises(IndexError):
        array[6]


@pytest.mark.parametrize("step", [None, 2, -1, -3])
def test_slices_equal_those_of_a_tuple(step: int | None) -> None:
    array = TextArray.from_texts(TEXTS)
    for start, stop in product(EDGES, EDGES):
        assert array[start:stop:step] == TEXTS[start:stop:step]
        assert array[1:5][start:stop:step] == TEXTS[1:5][start:stop:step]


@pytest.mark.parametrize(
    "value", [(*TEXTS, "more"), TEXTS[:-1], TEXTS[::-1], (*TEXTS[:-1], None), "aaaaaa", 6]
)
def test_an_array_differs_from_other_values(value: object) -> None:
    assert TextArray.from_texts(TEXTS) != value


@pytest.mark.parametrize(
    "values", [TEXTS, TextArray.from_texts(TEXTS), TextArray.from_texts(("x", *TEXTS))[1:]]
)
def test_rows_are_taken_in_order(values: TextArray[str]) -> None:
    assert take_rows(values, np.array([5, 0, 1, 1])) == ("last", "", "a", "a")
    assert take_rows(values, np.array([], dtype=np.int64)) == ()


def test_missing_values_become_none() -> None:
    column = pd.Series(["a", None, ""], dtype="str")
    array: TextArray[str | None] = TextArray.from_column(column)
    assert array == ("a", None, "")
    assert take_rows(array, np.array([1, 2])) == (None, "")


@pytest.mark.parametrize(
    "array",
    [TextArray.from_texts(TEXTS), TextArray.from_texts(TEXTS)[2:5], TextArray.from_texts(())],
)
def test_copies_are_equal(array: TextArray[str]) -> None:
    assert pickle.loads(pickle.dumps(array)) == array  # noqa: S301 - pickled by this test
    assert TextArray.from_flat(*array.flat) == array


@pytest.mark.parametrize(
    ("data", "ends"),
    [(b"ab", [1, 3]), (b"ab", [2, 1]), (b"\xff\xff", [1, 2]), (b"ab", [-1, 2])],
)
def test_invalid_bytes_are_refused(data: bytes, ends: list[int]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pyarrow's message
        TextArray.from_flat(np.frombuffer(data, np.uint8), np.array(ends, dtype=np.int64))


def test_the_repr_contains_no_text() -> None:
    assert "secret" not in repr(TextArray.from_texts(["a secret"]))


@given(st.lists(st.none() | st.text(alphabet="ab\x00", max_size=3)))
def test_group_ids_follow_first_occurrence(values: list[str | None]) -> None:
    ids: dict[str, int] = {}
    expected = [-1 if value is None else ids.setdefault(value, len(ids)) for value in values]
    assert group_ids(values).tolist() == expected
