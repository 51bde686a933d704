"""Labels in one column of sets."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from toxbench.data.load import load_dataset
from toxbench.data.table import TextDataset, read_comments
from toxbench.errors import DataError
from toxbench.settings import ColumnSettings, SplitSettings

TARGETS = [[1, 1], [0, 0], [0, 1]]


def read(cells: list[Any], name: str = "labels", **columns: Any) -> TextDataset:
    frame = pd.DataFrame({"text": [f"text {row}" for row in range(len(cells))], name: cells})
    return read_comments(frame, ColumnSettings.model_validate(columns))


NOTATIONS = {
    "lists": [["rude", "kind"], [], ["kind"]],
    "JSON": ['["rude", "kind"]', "[]", '["kind"]'],
    "Python": ["['rude', 'kind']", "[]", "('kind',)"],
    "numpy": ["['rude' 'kind']", "[]", "['kind']"],
    "Python sets": ["{'rude', 'kind'}", "set()", "{'kind'}"],
    "brackets": ["<rude><kind>", "", "<kind>"],
    "bars": ["rude|kind", "", "kind"],
    "semicolons": ["rude; kind", " ", "kind"],
    "commas": ["rude,kind", None, "kind"],
    "values": [{"rude": 1.0, "kind": 1}, {"rude": 0, "kind": 0.0}, {"rude": 0, "kind": 1}],
    "positive values": ['{"rude": true, "kind": true}', "{}", '{"kind": true}'],
}


@pytest.mark.parametrize("notation", NOTATIONS)
def test_every_notation_gives_the_same_labels(notation: str) -> None:
    comments = read(NOTATIONS[notation])
    order = [comments.labels.index(label) for label in ("rude", "kind")]
    assert comments.targets[:, order].tolist() == TARGETS
    assert comments.columns["labels"] == "labels"
    assert comments.notes[0].startswith("labels are those in column 'labels': ")


def test_a_separator_can_be_named() -> None:
    cells = ["rude / very, kind", "rude / very", "kind"]
    with pytest.raises(DataError, match="found no label column"):
        read(cells, name="topic list")
    comments = read(cells, "topic list", labels_column="topic list", labels_separator=",")
    assert comments.labels == ("rude / very", "kind")


def test_several_separators_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"several separators are possible: \| ,; name one with --l"
    ):
        read(["a|b", "a,b"], labels_column="labels")


def test_integers_need_names() -> None:
    cells = [[0, 2], [], [2]]
    with pytest.raises(DataError, match="the labels are integers; name them, from 0, with --label"):
        read(cells)
    comments = read(cells, label_names=["rude", "odd", "kind"])
    assert comments.supports == {"rude": 1, "odd": 0, "kind": 2}
    assert read(["0,2", "", "2"], label_names=["rude", "odd", "kind"]).targets.tolist() == [
        [1, 0, 1], [0, 0, 0], [0, 0, 1],
    ]  # fmt: skip
    with pytest.raises(DataError, match="row 1, column 'labels': label 2 has no name: there are 2"):
        read(cells, label_names=["rude", "odd"])


def test_lists_of_values_need_names() -> None:
    cells = [[1, 1], [0, 0], [0.0, 1.0]]
    with pytest.raises(DataError, match="the labels are values of 0 and 1; name 2 with --label-na"):
        read(cells)
    assert read(cells, label_names=["rude", "kind"]).targets.tolist() == TARGETS


@pytest.mark.parametrize("kind", ["Sequence", "List", "list"])
def test_names_come_from_parquet_metadata(tmp_path: Path, kind: str) -> None:
    label = {"names": ["rude", "odd", "kind"], "_type": "ClassLabel"}
    feature = [label] if kind == "list" else {"feature": label, "_type": kind}
    metadata = {"huggingface": json.dumps({"info": {"features": {"labels": feature}}})}
    table = pa.table({"text": ["x", "y", "z"], "labels": [[0, 2], [], [2]]})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
    assert read_comments(tmp_path / "t.parquet").supports == {"rude": 1, "odd": 0, "kind": 2}
    broken = table.replace_schema_metadata({"huggingface": "[]"})
    pq.write_table(broken, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="the labels are integers"):
        read_comments(tmp_path / "t.parquet")


def test_named_labels_are_selected() -> None:
    comments = read(NOTATIONS["lists"], labels_column="labels", labels=["kind", "absent"])
    assert comments.supports == {"kind": 2, "absent": 0}
    assert comments.notes[1] == "labels that are not used: 'rude'"


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (
            [{"rude": 1, "kind": 0}, {"rude": 0}, None],
            "row 2, column 'labels', label 'kind': the label is blank",
        ),
        ([["rude"], None, ["kind"]], "row 2, column 'labels', label 'rude': the label is blank"),
        ([["rude"], [["kind"]]], "row 2, column 'labels': ...kind... is not the name of a label"),
        ([["rude"], ["x" * 41]], "row 2, column 'labels': a text of 41 characters is not the"),
    ],
)
def test_invalid_sets_are_reported_with_their_row(cells: list[Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read([json.dumps(cell) if cell is not None else None for cell in cells])


def test_texts_are_not_taken_as_labels() -> None:
    with pytest.raises(DataError, match="20 different labels in 20 rows, as in a column of texts"):
        read([f"fool{row}" for row in range(20)], labels_column="labels")


def test_columns_that_may_be_either_are_refused() -> None:
    sets = pd.DataFrame({"text": ["x", "y"], "labels": [["a"], ["b"]], "IsA": [0, 1]})
    with pytest.raises(DataError, match="labels may be in 'IsA', 'labels'; name one column of lab"):
        read_comments(sets)
    assert read_comments(sets, ColumnSettings(labels=("IsA",))).labels == ("IsA",)
    assert read_comments(sets, ColumnSettings(labels_column="labels")).labels == ("a", "b")
    renamed = sets.rename(columns={"labels": "words"})
    assert read_comments(renamed).labels == ("IsA",)
    two = renamed.drop(columns="IsA").assign(others=renamed["words"])
    with pytest.raises(DataError, match="labels may be in 'words', 'others'; name one column"):
        read_comments(two)
    with pytest.raises(DataError, match="column 'labels' was named for two roles"):
        read_comments(sets, ColumnSettings(labels_column="labels", id_column="labels"))


def test_part_files_have_the_labels_of_the_first(tmp_path: Path) -> None:
    cells = {"train": ["a|b", "b", "a"] * 4, "test": ["b|c", "b", ""]}
    for name, values in cells.items():
        pd.DataFrame({"text": values, "tags": values}).to_csv(tmp_path / f"{name}.csv", index=False)
    frame = pd.read_csv(tmp_path / "test.csv").assign(text=["x", "y", "z"])
    frame.to_csv(tmp_path / "test.csv", index=False)
    split = SplitSettings(test=tmp_path / "test.csv")
    comments = load_dataset(tmp_path / "train.csv", ColumnSettings(), split).comments
    assert comments.labels == ("a", "b")
    assert comments.targets[12:].tolist() == [[0, 1], [0, 1], [0, 0]]
    assert "labels that are not used: 'c'" in comments.notes


def test_unlabelled_sets_can_be_dropped() -> None:
    columns = {"unlabelled": ["-1", "blank"], "drop_unlabelled": True}
    comments = read(["a|b", "-1", "b", None], **columns)
    assert comments.targets.tolist() == [[1, 1], [0, 1]]
    assert comments.dropped_rows == (2, 4)
