"""Slices of rows: identity terms in texts, and the values of a column."""

from pathlib import Path

import pytest

from toxbench.data.groups import (
    MAX_SLICES,
    column_slices,
    read_terms,
    swap_terms,
    term_slices,
)
from toxbench.errors import DataError

TERMS = {"women": ("women", "female"), "old": ("old people", "old")}


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("WOMEN, and men", {"women"}),
        ("womens", set()),
        ("#women_", set()),
        ("Old\n people: women", {"old", "women"}),
        ("gold", set()),
    ],
)
def test_terms_match_whole_words_in_any_case(text: str, groups: set[str]) -> None:
    assert {group for group, members in term_slices(TERMS, [text]).items() if members[0]} == groups


def test_swapped_terms_keep_their_form() -> None:
    assert swap_terms(TERMS, "Female or old people, not golden") == "old or women, not golden"
    terms = read_terms()
    text = "Some women and a jewish person."
    assert swap_terms(terms, text) != text
    assert swap_terms(terms, "no such word") == "no such word"


def test_shipped_list_has_three_forms_of_every_group() -> None:
    groups = read_terms()
    assert len(groups) > 10
    assert all(len(terms) >= 3 for terms in groups.values())


@pytest.mark.parametrize("line", ["women women", "women:", ": women", "women: ,"])
def test_line_without_terms_is_refused_unquoted(tmp_path: Path, line: str) -> None:
    path = tmp_path / "terms.txt"
    path.write_text(f"# groups\n\nmen: men  # a note\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 4 is not of the form") as error:
        read_terms(path)
    assert "women" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe", None])
def test_unusable_list_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "terms.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"terms\.txt: "):
        read_terms(path)


def test_column_slices_are_the_most_frequent_values() -> None:
    values = [*("de" for _ in range(3)), "en", "en", None, *map(str, range(40))]
    slices = column_slices("lang", values)
    assert len(slices) == MAX_SLICES
    assert list(slices)[:2] == ["'lang' = 'de'", "'lang' = 'en'"]
    assert slices["'lang' = 'de'"].tolist() == [True] * 3 + [False] * 43


def test_long_values_are_not_named() -> None:
    slices = column_slices("lang", ["a value with many words", "a value with other words"])
    assert list(slices) == [
        "'lang' = value 1 of 23 characters",
        "'lang' = value 2 of 24 characters",
    ]
