"""Splits that a benchmark comes with are used as they are."""

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


def opened(data: Path, columns: dict[str, Any] | None = None, **split: Any) -> SplitDataset:
    return load_dataset(data, ColumnSettings(**(columns or {})), SplitSettings(**split))


def parts(source: SplitDataset) -> list[list[int]]:
    (fold,) = source.folds
    return [rows.tolist() for rows in (fold.train, fold.validation, fold.test)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_for_each_part(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    reversed_difference = list(frame.columns[::-1])
    data = write(frame[:30], tmp_path / f"train.{suffix}")
    valid = write(frame[reversed_difference][30:40], tmp_path / f"valid.{suffix}")
    test = write(frame[reversed_difference][40:], tmp_path / f"test.{suffix}")
    source = opened(data, valid=valid, test=test)
    assert parts(source) == [list(range(30)), list(range(30, 40)), list(range(40, 60))]
    assert source.comments.ids == tuple(frame["id"])
    assert source.comments.texts == tuple(frame["text"])
    assert source.comments.labels == ("IsRude", "IsLong", "IsNever")
    assert np.array_equal(source.comments.targets, frame[list(source.comments.labels)])
    assert source.origin == f"official, by valid.{suffix} and test.{suffix}"


@pytest.mark.parametrize("kind", ["random", "stratified", "grouped"])
def test_validation_rows_are_drawn_out_of_the_train_rows(
    frame: pd.DataFrame, tmp_path: Path, kind: str
) -> None:
    frame["video"] = [f"v{row // 3}" for row in range(60)]
    data = write(frame[:40], tmp_path / "train.csv")
    test = write(frame[40:], tmp_path / "test.csv")
    source = opened(data, test=test, split=kind, validation_size=0.2)
    train, validation, tested = parts(source)
    assert tested == list(range(40, 60))
    assert sorted(train + validation) == list(range(40))
    assert 5 <= len(validation) <= 12
    assert source.origin == f"official, by test.csv, validation rows {kind} out of train"
    if kind == "grouped":
        groups = row_groups(source.comments)
        assert not set(groups[train]) & set(groups[validation])


def test_without_validation_rows_there_are_none(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    test = write(frame[40:], tmp_path / "test.csv")
    source = opened(data, test=test, validation_size=0.0)
    assert parts(source)[1] == []
    assert source.origin == "official, by test.csv"


def test_ids_that_are_not_there_are_made_up_without_repeats(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    data = write(frame[:40].drop(columns="id"), tmp_path / "train.csv")
    test = write(frame[40:], tmp_path / "test.csv")
    source = opened(data, test=test)
    assert source.comments.ids == tuple(str(row) for row in range(1, 61))
    assert source.comments.ignored == ("id",)


def test_an_id_in_two_files_is_refused_where_it_stands(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    test = write(frame[38:], tmp_path / "test.csv")
    with pytest.raises(DataError) as caught:
        opened(data, test=test)
    assert [problem.split(": ", 1)[1] for problem in caught.value.problems] == [
        f"row {row}, column 'id': the same id as in row {row + 38} of {data}; "
        "a row belongs to one part, and an id to one row"
        for row in (1, 2)
    ]


def test_other_labels_are_refused_by_name(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    other = frame[40:].rename(columns={"IsLong": "Is\x1bShort"})
    test = write(other, tmp_path / "test.csv")
    with pytest.raises(DataError) as caught:
        opened(data, test=test)
    missing, extra = caught.value.problems
    assert "columns of 'train.csv' are missing: 'IsLong'" in missing
    assert r"label columns that 'train.csv' has not: 'Is\x1bShort'" in extra
    with pytest.raises(DataError, match="missing: 'IsLong'") as caught:
        opened(data, {"labels": ("IsRude", "IsLong")}, test=test)
    assert len(caught.value.problems) == 1


def test_labels_that_were_named_are_all_that_a_test_file_needs(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    test = write(frame[40:].assign(IsMore=1), tmp_path / "test.csv")
    source = opened(data, {"labels": ("IsLong",)}, test=test)
    assert source.comments.labels == ("IsLong",)
    assert source.comments.ignored == ("IsRude", "IsNever", "IsMore")


def test_a_bad_value_is_told_with_the_file_it_is_in(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = write(frame[:40], tmp_path / "train.csv")
    bad = frame[40:].astype({"IsRude": str})
    bad.iloc[3, 2] = "2"
    test = write(bad, tmp_path / "test.csv")
    with pytest.raises(DataError, match=r"test.csv: row 4, column 'IsRude': '2' is not a label"):
        opened(data, test=test)
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        opened(data, test=tmp_path / "nowhere.csv")


# --- a column


WORDS = ["train", " Train ", "VALID", "dev", "val", "validation", "test", "TEST ", "train", "test"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_column_says_the_part_of_each_row(
    frame: pd.DataFrame, tmp_path: Path, suffix: str
) -> None:
    frame["part"] = WORDS * 6
    source = opened(write(frame, tmp_path / f"t.{suffix}"), split_column="part")
    train, validation, test = parts(source)
    assert train[:4] == [0, 1, 8, 10]
    assert validation[:5] == [2, 3, 4, 5, 12]
    assert test[:4] == [6, 7, 9, 16]
    assert sorted(train + validation + test) == list(range(60))
    assert source.comments.labels == ("IsRude", "IsLong", "IsNever")
    assert source.comments.ignored == ()
    assert source.origin == "official, by column 'part'"


def test_a_column_without_validation_rows(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["part"] = ["train", "train", "test"] * 20
    path = write(frame, tmp_path / "t.csv")
    source = opened(path, split_column="part", validation_size=0.25)
    train, validation, test = parts(source)
    assert test == list(range(2, 60, 3))
    assert (len(train), len(validation)) == (30, 10)
    assert "validation rows random out of train" in source.origin
    with pytest.raises(DataError, match="40 train rows are too few to hold out validation"):
        opened(path, split_column="part", validation_size=0.999)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "the part is blank"),
        ("tset", "'tset' is no part"),
        ("te\x1bst", r"'te\\x1bst' is no part"),
        ("0", "'0' is no part"),
        ("you fool you fool", "a text of 17 characters is no part"),
    ],
)
def test_another_value_is_told_with_row_and_column(
    frame: pd.DataFrame, tmp_path: Path, value: str, problem: str
) -> None:
    frame["part"] = ["train", "test"] * 29 + [value, "test"]
    with pytest.raises(DataError, match=f"row 59, column 'part': {problem}; write train") as caught:
        opened(write(frame, tmp_path / "t.csv"), split_column="part")
    assert len(caught.value.problems) == 1


def test_a_null_is_a_blank(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["part"] = ["train", "test"] * 29 + [None, "test"]
    for name in ("t.jsonl", "t.parquet"):
        with pytest.raises(DataError, match="row 59, column 'part': the part is blank"):
            opened(write(frame, tmp_path / name), split_column="part")


@pytest.mark.parametrize("word", ["train", "test"])
def test_a_part_that_must_have_rows(frame: pd.DataFrame, tmp_path: Path, word: str) -> None:
    frame["part"] = word
    with pytest.raises(DataError, match=r"says '(train|test)' of no row"):
        opened(write(frame, tmp_path / "t.csv"), split_column="part")


def test_a_column_that_is_not_there_or_is_something_else(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv")
    with pytest.raises(DataError, match="no column is called 'IsRud'; did you mean 'IsRude'"):
        opened(path, split_column="IsRud")
    with pytest.raises(DataError, match="'IsRude' was named for two roles"):
        opened(path, {"labels": ("IsRude",)}, split_column="IsRude")
