"""Split files: the same rows by id, for the same table in any order, and for no other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from toxbench.data.load import SplitDataset, load_dataset
from toxbench.errors import DataError, SettingsError, StorageError
from toxbench.records import PARTS
from toxbench.settings import ColumnSettings, SplitSettings

Content = dict[str, Any]


def opened(table: Path, file: Path, **split: Any) -> SplitDataset:
    settings = SplitSettings(split_file=file, **split)
    return load_dataset(table, ColumnSettings(), settings, frozenset(split))


def ids(source: SplitDataset) -> list[list[list[str]]]:
    names = source.comments.ids
    return [[[names[row] for row in fold.part(part)] for part in PARTS] for fold in source.folds]


@pytest.fixture
def file(table: Path, tmp_path: Path) -> Path:
    """A split file of three folds."""
    opened(table, tmp_path / "split.json", folds=3, validation_size=0.1).write()
    return tmp_path / "split.json"


def edit(file: Path, change: Callable[[Content], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("kind", ["random", "stratified", "grouped"])
@pytest.mark.parametrize("folds", [1, 3])
def test_drawn_folds_come_back_from_the_file(
    table: Path, tmp_path: Path, kind: str, folds: int
) -> None:
    path = tmp_path / "folder" / "split.json"
    drawn = opened(table, path, split=kind, folds=folds)
    assert not path.exists()
    assert drawn.origin == f"{kind}, to be written to {path}"
    drawn.write()
    before = path.read_bytes()
    drawn.write()
    read = opened(table, path)
    read.write()
    assert path.read_bytes() == before
    assert ids(read) == ids(drawn)
    assert (read.settings.split, read.settings.folds) == (kind, folds)
    assert read.origin == f"{kind}, read from {path}"


def test_the_file_holds_no_comment(file: Path) -> None:
    assert "fool" not in file.read_text(encoding="utf-8")


def test_a_table_in_another_order_gives_the_same_parts(
    table: Path, file: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(table).sample(frac=1, random_state=1)
    frame[list(frame.columns[::-1])].to_json(tmp_path / "o.jsonl", orient="records", lines=True)
    other, usual = opened(tmp_path / "o.jsonl", file), opened(table, file)
    assert other.comments.ids != usual.comments.ids
    assert ids(other) == ids(usual)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("w7,", "w7!,", "other texts"),
        ("w7,1", "w7,0", "other values of labels"),
        ("c59,", "c60,", "other ids"),
        ("IsLong", "IsOdd", "other labels"),
        ("\nc0,thank you  w0,0,1,0", "", "it has 60 rows, this one 59"),
    ],
)
def test_another_table_is_refused_with_what_differs(
    table: Path, file: Path, old: str, new: str, difference: str
) -> None:
    text = table.read_text(encoding="utf-8")
    changed = text.replace(old, new) if old in text else drop_first_row(text)
    table.write_text(changed, encoding="utf-8")
    with pytest.raises(DataError, match=f"another table, 'comments.csv': {difference}; name"):
        opened(table, file)


def drop_first_row(text: str) -> str:
    header, _, *rows = text.splitlines(keepends=True)
    return "".join([header, *rows])


def first(content: Content, part: str = "train") -> list[str]:
    names: list[str] = content["folds"][0][part]
    return names


def again_in_the_next_fold(content: Content) -> None:
    """Test in fold 1 what fold 0 tests; the parts of each fold stay whole."""
    content["folds"][1] = content["folds"][0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: first(c).append("c\x1b99"), r"fold 0, train: id 'c\\x1b99' is not in the table"),
        (lambda c: first(c).append("you fool " * 9), "id a text of 81 characters is not in the"),
        (lambda c: first(c).append(first(c)[0]), "fold 0, train: id '.*' stands in train, too"),
        (lambda c: first(c, "test").append(first(c)[0]), "fold 0, test: id '.*' stands in train"),
        (lambda c: first(c).pop(), "fold 0: id '.*' is in no part"),
        (lambda c: c["folds"].pop(), "2 folds are there, its settings say 3"),
        (again_in_the_next_fold, "id '.*' is tested in fold 0 and in fold 1"),
        (lambda c: first(c, "test").clear(), "not a split file of toxbench: folds.0.test"),
        (lambda c: c.update(schema_version=-1), "not a split file of toxbench: schema_version"),
        (lambda c: c.pop("table"), "not a split file of toxbench: table: field required"),
        (lambda c: first(c).append(7), "not a split file of toxbench: folds.0.train"),
        (lambda c: c.update(folds=[]), "not a split file of toxbench: folds"),
        (lambda c: c["settings"].update(folds=0), "not a split file of toxbench: settings.folds"),
    ],
)
def test_an_edited_file_is_one_line(
    table: Path, file: Path, change: Callable[[Content], object], problem: str
) -> None:
    edit(file, change)
    with pytest.raises(DataError, match=problem) as caught:
        opened(table, file)
    assert len(str(caught.value).splitlines()) == 1
    assert "fool" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"folds": ', b"[" * 100_000, b"null"])
def test_a_damaged_file_is_one_line(table: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "split.json").write_bytes(content)
    with pytest.raises(DataError, match="not a split file of toxbench") as caught:
        opened(table, tmp_path / "split.json")
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "split.json").read_bytes() == content


def test_a_folder_is_no_split_file(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="directory"):
        opened(table, tmp_path)


def test_a_file_that_says_something_else_than_the_user_is_refused(table: Path, file: Path) -> None:
    assert len(opened(table, file, folds=3).folds) == 3
    with pytest.raises(SettingsError, match="was drawn with folds = 3, not 5"):
        opened(table, file, folds=5)
    with pytest.raises(SettingsError, match="split = random, not grouped"):
        opened(table, file, split="grouped")


def test_what_another_run_wrote_meanwhile_is_not_overwritten(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    one, other = opened(table, path), opened(table, path, split_seed=1)
    one.write()
    with pytest.raises(StorageError, match="another run"):
        other.write()
    assert ids(opened(table, path)) == ids(one)
