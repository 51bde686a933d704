"""What is kept of a table: all of it is read as it was written, or an error says that it is not."""

from pathlib import Path

import numpy as np
import pytest
from support import make_comments

from toxbench.data.groups import row_groups
from toxbench.errors import StorageError
from toxbench.store.rows import FILE, read_rows, write_rows


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("grouped", [False, True])
def test_rows_are_read_as_they_were_written(tmp_path: Path, rows: int, grouped: bool) -> None:
    groups: list[str | None] = ["ünter", None, "ünter", "b", None, "b", "c"]
    comments = make_comments(rows, groups[:rows] if grouped else None)
    write_rows(tmp_path, comments)
    found = read_rows(tmp_path)
    assert found.ids == comments.ids
    assert found.targets.dtype == np.uint8
    assert np.array_equal(found.targets, comments.targets)
    assert found.groups.tolist() == row_groups(comments).tolist()
    assert found.has_groups is grouped


def test_equal_texts_belong_together_without_groups(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(4, texts=["One", "two", "one ", "three"]))
    found = read_rows(tmp_path)
    assert (found.groups.tolist(), found.has_groups) == ([0, 1, 0, 2], False)


def test_neither_comments_nor_names_of_groups_are_kept(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(3, ["a video", "a video", None], ["say it"] * 3))
    data = (tmp_path / FILE).read_bytes()
    assert b"say it" not in data
    assert b"a video" not in data
    assert b"c1" in data  # ids are


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(5))
    once = (tmp_path / FILE).read_bytes()
    write_rows(tmp_path, make_comments(5))
    assert (tmp_path / FILE).read_bytes() == once


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path, bit: int) -> None:
    write_rows(tmp_path, make_comments(3, ["a", "b", None]))
    path = tmp_path / FILE
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"rows\.safetensors is damaged; the same"):
            read_rows(tmp_path)
    path.write_bytes(whole)
    assert read_rows(tmp_path).ids == ("c0", "c1", "c2")


def test_other_groups_of_the_same_table_take_the_place_of_the_first(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(4))
    write_rows(tmp_path, make_comments(4, ["a", "a", "b", None]))
    found = read_rows(tmp_path)
    assert (found.groups.tolist(), found.has_groups) == ([0, 0, 1, 2], True)


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(4))
    before = (tmp_path / FILE).stat()
    write_rows(tmp_path, make_comments(4))
    assert (tmp_path / FILE).stat().st_ino == before.st_ino


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_a_file_that_was_cut_off_is_damaged(tmp_path: Path, kept: int) -> None:
    write_rows(tmp_path, make_comments(3))
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StorageError, match="is damaged"):
        read_rows(tmp_path)


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is missing; the same toxbench run again writes it"):
        read_rows(tmp_path)
