"""Split files: the same rows by id, for the same table in any order, and for no other table."""

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


def load(table: Path, file: Path, **split: Any) -> SplitDataset:
    settings = SplitSettings(split_file=file, **split)
    return load_dataset(table, ColumnSettings(), settings, frozenset(split))


def fold_ids(dataset: SplitDataset) -> list[list[list[str]]]:
    """Return the row ids of each part of each fold."""
    ids = dataset.comments.ids
    return [[[ids[row] for row in fold.part(part)] for part in PARTS] for fold in dataset.folds]


@pytest.fixture
def file(table: Path, tmp_path: Path) -> Path:
    """Return a split file of three folds."""
    load(table, tmp_path / "split.json", folds=3, validation_size=0.1).write()
    return tmp_path / "split.json"


def edit(file: Path, change: Callable[[Content], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("kind", ["random", "stratified", "grouped"])
@pytest.mark.parametrize("folds", [1, 3])
def test_written_folds_are_read_unchanged(
    table: Path, tmp_path: Path, kind: str, folds: int
) -> None:
    path = tmp_path / "folder" / "split.json"
    original = load(table, path, split=kind, folds=folds)
    assert not path.exists()
    assert original.origin == f"{kind}, for the new split file {path}"
    original.write()
    content = path.read_bytes()
    original.write()
    dataset = load(table, path)
    dataset.write()
    assert path.read_bytes() == content
    assert fold_ids(dataset) == fold_ids(original)
    assert (dataset.settings.split, dataset.settings.folds) == (kind, folds)
    assert dataset.origin == f"{kind}, read from {path}"


def test_the_file_contains_no_comment(file: Path) -> None:
    assert "fool" not in file.read_text(encoding="utf-8")


def test_a_reordered_table_gives_the_same_parts(table: Path, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "reordered.jsonl"
    frame = pd.read_csv(table).sample(frac=1, random_state=1)
    frame[list(frame.columns[::-1])].to_json(path, orient="records", lines=True)
    reordered, original = load(path, file), load(table, file)
    assert reordered.comments.ids != original.comments.ids
    assert fold_ids(reordered) == fold_ids(original)


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
def test_another_table_is_refused_with_the_difference(
    table: Path, file: Path, old: str, new: str, difference: str
) -> None:
    text = table.read_text(encoding="utf-8")
    changed = text.replace(old, new) if old in text else drop_first_row(text)
    table.write_text(changed, encoding="utf-8")
    with pytest.raises(DataError, match=f"another table, 'comments.csv': {difference}; name"):
        load(table, file)


def drop_first_row(text: str) -> str:
    header, _, *rows = text.splitlines(keepends=True)
    return "".join([header, *rows])


def ids(content: Content, part: str = "train") -> list[str]:
    """Return the ids of a part of the first fold."""
    part_ids: list[str] = content["folds"][0][part]
    return part_ids


def repeat_fold(content: Content) -> None:
    """Test the same rows in fold 0 and fold 1; the parts of each fold remain complete."""
    content["folds"][1] = content["folds"][0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: ids(c).append("c\x1b99"), r"fold 0, train: id 'c\\x1b99' is not in the table"),
        (lambda c: ids(c).append("you fool"), "id a text of 8 characters is not in the"),
        (lambda c: ids(c).append(ids(c)[0]), "fold 0, train: id '.*' is also in train"),
        (lambda c: ids(c, "test").append(ids(c)[0]), "fold 0, test: id '.*' is also in train"),
        (lambda c: ids(c).pop(), "fold 0: id '.*' is in no part"),
        (lambda c: c["folds"].pop(), "the file has 2 folds, but its settings have 3"),
        (repeat_fold, "id '.*' is tested in fold 0 and in fold 1"),
        (lambda c: ids(c, "test").clear(), "not a split file of toxbench: folds.0.test"),
        (lambda c: c.update(schema_version=-1), "not a split file of toxbench: schema_version"),
        (lambda c: c.pop("table"), "not a split file of toxbench: table: field required"),
        (lambda c: ids(c).append(7), "not a split file of toxbench: folds.0.train"),
        (lambda c: c.update(folds=[]), "not a split file of toxbench: folds"),
        (lambda c: c["settings"].update(folds=0), "not a split file of toxbench: settings.folds"),
    ],
)
def test_invalid_edits_are_one_line(
    table: Path, file: Path, change: Callable[[Content], object], problem: str
) -> None:
    edit(file, change)
    with pytest.raises(DataError, match=problem) as caught:
        load(table, file)
    assert len(str(caught.value).splitlines()) == 1
    assert "fool" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"folds": ', b"[" * 100_000, b"null"])
def test_damaged_files_are_one_line(table: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "split.json").write_bytes(content)
    with pytest.raises(DataError, match="not a split file of toxbench") as caught:
        load(table, tmp_path / "split.json")
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "split.json").read_bytes() == content


def test_a_folder_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="directory"):
        load(table, tmp_path)


def test_contradicting_settings_are_refused(table: Path, file: Path) -> None:
    assert len(load(table, file, folds=3).folds) == 3
    with pytest.raises(SettingsError, match="was drawn with folds = 3, not 5"):
        load(table, file, folds=5)
    with pytest.raises(SettingsError, match="split = random, not grouped"):
        load(table, file, split="grouped")


def test_files_of_other_runs_are_not_overwritten(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    first, second = load(table, path), load(table, path, split_seed=1)
    first.write()
    with pytest.raises(StorageError, match="another run"):
        second.write()
    assert fold_ids(load(table, path)) == fold_ids(first)
