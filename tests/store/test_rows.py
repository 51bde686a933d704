"""Stored rows: they are read as written, or an error reports the damage."""

from pathlib import Path

import numpy as np
import pytest
from support import make_comments

from toxbench.data.groups import row_groups
from toxbench.errors import StorageError
from toxbench.store.files import FILE, read_rows, write_rows


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("has_groups", [False, True])
def test_rows_are_read_unchanged(tmp_path: Path, rows: int, has_groups: bool) -> None:
    groups: list[str | None] = ["ünter", None, "ünter", "b", None, "b", "c"]
    comments = make_comments(rows, groups[:rows] if has_groups else None)
    write_rows(tmp_path, comments)
    stored = read_rows(tmp_path)
    assert stored.ids == comments.ids
    assert stored.targets.dtype == np.uint8
    assert np.array_equal(stored.targets, comments.targets)
    assert stored.groups.tolist() == row_groups(comments).tolist()
    assert stored.is_grouped.any() == (has_groups and rows > 0)


def test_equal_texts_form_groups_by_default(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(4, texts=["One", "two", "one ", "three"]))
    stored = read_rows(tmp_path)
    assert (stored.groups.tolist(), stored.is_grouped.any()) == ([0, 1, 0, 2], False)


def test_comments_and_group_names_are_not_stored(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(3, ["a video", "a video", None], ["say it"] * 3))
    data = (tmp_path / FILE).read_bytes()
    assert b"say it" not in data
    assert b"a video" not in data
    assert b"c1" in data  # ids are stored


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(5))
    first = (tmp_path / FILE).read_bytes()
    write_rows(tmp_path, make_comments(5))
    assert (tmp_path / FILE).read_bytes() == first


@pytest.mark.parametrize("bit", [0, 7])
def test_any_flipped_bit_is_detected(tmp_path: Path, bit: int) -> None:
    write_rows(tmp_path, make_comments(3, ["a", "b", None]))
    path = tmp_path / FILE
    content = path.read_bytes()
    for index in range(len(content)):
        damaged = bytearray(content)
        damaged[index] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"rows\.safetensors is damaged; "):
            read_rows(tmp_path)
    path.write_bytes(content)
    assert read_rows(tmp_path).ids == ("c0", "c1", "c2")


def test_changed_groups_replace_stored_groups(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(4))
    write_rows(tmp_path, make_comments(4, ["a", "a", "b", None]))
    stored = read_rows(tmp_path)
    assert (stored.groups.tolist(), stored.is_grouped.any()) == ([0, 0, 1, 2], True)


def test_unchanged_rows_are_not_rewritten(tmp_path: Path) -> None:
    write_rows(tmp_path, make_comments(4))
    before = (tmp_path / FILE).stat()
    write_rows(tmp_path, make_comments(4))
    assert (tmp_path / FILE).stat().st_ino == before.st_ino


@pytest.mark.parametrize("end", [0, 7, 8, 100, -1])
def test_a_truncated_file_is_detected(tmp_path: Path, end: int) -> None:
    write_rows(tmp_path, make_comments(3))
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(StorageError, match="is damaged"):
        read_rows(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"is missing; .*writes it"):
        read_rows(tmp_path)
