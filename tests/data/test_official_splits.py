"""Official splits: one file for each part, or a column with the part of each row."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import write_table

from toxbench.data.groups import row_groups
from toxbench.data.load import SplitDataset, load_dataset
from toxbench.errors import DataError
from toxbench.settings import ColumnSettings, SplitSettings

SUFFIXES = ("csv", "tsv", "parquet", "jsonl")


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.fixture
def frame(table: Path) -> pd.DataFrame:
    return pd.read_csv(table)


def load(data: Path, columns: dict[str, Any] | None = None, **split: Any) -> SplitDataset:
    return load_dataset(data, ColumnSettings(**(columns or {})), SplitSettings(**split))


def parts(dataset: SplitDataset) -> list[list[int]]:
    (fold,) = dataset.folds
    return [rows.tolist() for rows in (fold.train, fold.validation, fold.test)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_part_files_are_used_unchanged(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    reversed_columns = list(frame.columns[::-1])
    data = write(frame[:30], tmp_path / f"train.{suffix}")
    valid = write(frame[reversed_columns][30:40], tmp_path / f"valid.{suffix}")
    test = write(frame[reversed_columns][40:], tmp_path / f"test.{suffix}")
    dataset = load(data, valid=valid, test=test)
    assert parts(dataset) == [list(range(30)), list(range(30, 40)), list(range(40, 60))]
    assert dataset.comments.ids == tuple(frame["id"])
    assert dataset.comments.texts == tuple(frame["text"])
    assert dataset.comments.labels == ("IsRude", "IsLong", "IsNever")
    assert np.array_equal(dataset.comments.targets, frame[list(dataset.comments.labels)])
    assert dataset.origin == f"official, by valid.{suffix} and test.{suffix}"


@pytest.mark.parametrize("kind", ["random", "stratified", "grouped"])
def test_validation_rows_come_from_train(frame: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    frame["video"] = [f"v{row // 3}" for row in range(60)]
    data = write(frame[:40], tmp_path / "train.csv")
    test = write(frame[40:], tmp_path / "test.csv")
    dataset = load(data, test=test, split=kind, validation_size=0.2)
    train, validation, tested = parts(dataset)
    assert tested == list(range(40, 60))
    assert sorted(train + validation) == list(range(40))
    assert 5 <= len(validation) <= 12
    assert dataset.origin == f"official, by test.csv, validation rows {kind} out of train"
    if kind == "grouped":
        groups = row_groups(dataset.comments)
        assert not set(groups[train]) & set(groups[validation])


def test_validation_may_be_empty(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    test = write(frame[40:], tmp_path / "test.csv")
    dataset = load(data, test=test, validation_size=0.0)
    assert parts(dataset)[1] == []
    assert dataset.origin == "official, by test.csv"


def test_generated_ids_are_unique(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40].drop(columns="id"), tmp_path / "train.csv")
    test = write(frame[40:], tmp_path / "test.csv")
    dataset = load(data, test=test)
    assert dataset.comments.ids == tuple(str(row) for row in range(1, 61))
    assert dataset.comments.ignored_columns == ("id",)


def test_an_id_in_two_files_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    test = write(frame[38:], tmp_path / "test.csv")
    with pytest.raises(DataError) as caught:
        load(data, test=test)
    assert [problem.split(": ", 1)[1] for problem in caught.value.problems] == [
        f"row {row}, column 'id': the same id as in row {row + 38} of {data}; "
        "remove one of the two rows, or give it another id"
        for row in (1, 2)
    ]


def test_different_label_columns_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    renamed = frame[40:].rename(columns={"IsLong": "Is\x1bShort"})
    test = write(renamed, tmp_path / "test.csv")
    with pytest.raises(DataError) as caught:
        load(data, test=test)
    missing, extra = caught.value.problems
    assert "columns of 'train.csv' are missing: 'IsLong'" in missing
    assert r"label columns that are not in 'train.csv': 'Is\x1bShort'" in extra
    with pytest.raises(DataError, match="missing: 'IsLong'") as caught:
        load(data, {"labels": ("IsRude", "IsLong")}, test=test)
    assert len(caught.value.problems) == 1


def test_only_named_labels_are_required(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    test = write(frame[40:].assign(IsMore=1), tmp_path / "test.csv")
    dataset = load(data, {"labels": ("IsLong",)}, test=test)
    assert dataset.comments.labels == ("IsLong",)
    assert dataset.comments.ignored_columns == ("IsRude", "IsNever", "IsMore")


def test_invalid_values_are_reported_with_their_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    bad = frame[40:].astype({"IsRude": str})
    bad.iloc[3, 2] = "2"
    test = write(bad, tmp_path / "test.csv")
    with pytest.raises(DataError, match=r"test.csv: row 4, column 'IsRude': '2' is not a label"):
        load(data, test=test)
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        load(data, test=tmp_path / "nowhere.csv")


# --- a split column


PART_NAMES = [
    "train", " Train ", "VALID", "dev", "val", "validation", "test", "TEST ", "train", "test",
]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_split_column_is_used(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    frame["part"] = PART_NAMES * 6
    dataset = load(write(frame, tmp_path / f"t.{suffix}"), split_column="part")
    train, validation, test = parts(dataset)
    assert train[:4] == [0, 1, 8, 10]
    assert validation[:5] == [2, 3, 4, 5, 12]
    assert test[:4] == [6, 7, 9, 16]
    assert sorted(train + validation + test) == list(range(60))
    assert dataset.comments.labels == ("IsRude", "IsLong", "IsNever")
    assert dataset.comments.ignored_columns == ()
    assert dataset.origin == "official, by column 'part'"


def test_a_split_column_without_validation_rows(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["part"] = ["train", "train", "test"] * 20
    path = write(frame, tmp_path / "t.csv")
    dataset = load(path, split_column="part", validation_size=0.25)
    train, validation, test = parts(dataset)
    assert test == list(range(2, 60, 3))
    assert (len(train), len(validation)) == (30, 10)
    assert "validation rows random out of train" in dataset.origin
    with pytest.raises(DataError, match="40 train rows are too few to hold out validation"):
        load(path, split_column="part", validation_size=0.999)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "the part is blank"),
        ("tset", "'tset' is not a part"),
        ("te\x1bst", r"'te\\x1bst' is not a part"),
        ("0", "'0' is not a part"),
        ("you fool you fool", "a text of 17 characters is not a part"),
    ],
)
def test_unknown_parts_are_reported_with_their_row(
    frame: pd.DataFrame, tmp_path: Path, value: str, problem: str
) -> None:
    frame["part"] = ["train", "test"] * 29 + [value, "test"]
    with pytest.raises(DataError, match=f"row 59, column 'part': {problem}; write train") as caught:
        load(write(frame, tmp_path / "t.csv"), split_column="part")
    assert len(caught.value.problems) == 1


def test_a_null_part_is_blank(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["part"] = ["train", "test"] * 29 + [None, "test"]
    for name in ("t.jsonl", "t.parquet"):
        with pytest.raises(DataError, match="row 59, column 'part': the part is blank"):
            load(write(frame, tmp_path / name), split_column="part")


@pytest.mark.parametrize(("part", "missing"), [("train", "test"), ("test", "train")])
def test_train_and_test_rows_are_required(
    frame: pd.DataFrame, tmp_path: Path, part: str, missing: str
) -> None:
    frame["part"] = part
    with pytest.raises(DataError, match=f"column 'part' has no {missing} row; mark at least one"):
        load(write(frame, tmp_path / "t.csv"), split_column="part")


def test_a_missing_or_label_column_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv")
    with pytest.raises(DataError, match="no column is called 'IsRud'; did you mean 'IsRude'"):
        load(path, split_column="IsRud")
    with pytest.raises(DataError, match="'IsRude' was named for two roles"):
        load(path, {"labels": ("IsRude",)}, split_column="IsRude")
