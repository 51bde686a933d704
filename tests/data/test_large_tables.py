"""Tables of several blocks: block boundaries make no difference."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toxbench.data.groups import row_groups
from toxbench.data.protocol import Protocol
from toxbench.data.sources import read_strings
from toxbench.data.splits import draw_folds
from toxbench.data.table import TextDataset, read_comments
from toxbench.errors import DataError
from toxbench.settings import ColumnSettings, SplitSettings

pytestmark = pytest.mark.slow

ROWS = 101_000  # three blocks


def make_frame() -> pd.DataFrame:
    """Return a table whose columns differ from block to block."""
    numbers = np.arange(ROWS)
    return pd.DataFrame(
        {
            "id": [f"c{number}" for number in numbers],
            "video": [f"v{number % 300}" if number > 60_000 else "" for number in numbers],
            "text": [f"text {number % 70_000}" for number in numbers],
            "IsA": np.where(numbers % 3 == 0, "True", "false"),
            "IsLate": np.where(numbers > 100_000, "1", "0"),
            "note": np.where(numbers < 1000, "", numbers.astype(str)),
        },
        dtype="str",
    )


WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "parquet": lambda frame, path: frame.to_parquet(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
}


@pytest.fixture(scope="module", params=WRITERS)
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / f"t.{request.param}"
    WRITERS[request.param](make_frame(), path)
    return path


@pytest.fixture(scope="module")
def comments(table: Path) -> TextDataset:
    return read_comments(table)


def test_every_format_is_read_unchanged(comments: TextDataset) -> None:
    expected = make_frame()
    assert comments.ids == expected["id"].tolist()
    assert comments.texts == expected["text"].tolist()
    assert comments.groups == [video or None for video in expected["video"]]
    assert comments.labels == ("IsA", "IsLate")
    assert comments.ignored_columns == ("note",)
    assert comments.targets[:, 0].tolist() == (expected["IsA"] == "True").tolist()
    assert comments.supports["IsLate"] == ROWS - 100_001


def test_every_format_has_the_same_fingerprints(comments: TextDataset) -> None:
    folds = draw_folds(comments, SplitSettings(split="grouped"))
    protocol = Protocol(comments, folds)
    assert protocol.data_fingerprint == (
        "e6b5caa60034a2184c72c1d66cc05b2a70aeb65ec7deb6498fd414d7e06f8ebd"
    )
    assert protocol.fingerprint == (
        "8ed66ef524e9febd0208875aa7538d859acc402ed84ba3049be3f9dd3a4ec550"
    )


def test_groups_link_rows_across_blocks(comments: TextDataset) -> None:
    groups = row_groups(comments)
    assert groups[5] == groups[70_005]
    assert groups[70_005] == groups[70_305]  # the same video
    assert groups[5] != groups[6]


def test_row_numbers_count_across_blocks(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame = make_frame()
    frame.loc[[3, 70_000], "text"] = ["", " "]
    frame.to_parquet(path)
    with pytest.raises(DataError, match=r"row 4, .*empty.*\n.*row 70001, .*empty"):
        read_comments(path)
    comments = read_comments(path, ColumnSettings(drop_empty=True))
    assert (len(comments), comments.dropped_rows) == (ROWS - 2, (4, 70_001))
    assert comments.ids[69_999] == "c70001"


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("id", "c7", "row 100501, column 'id': the same id as in row 8;"),
        ("id", " ", "row 100501, column 'id': the id is blank;"),
        ("IsA", "yes", "row 100501, column 'IsA': 'yes' is not a label; write 1"),
        ("IsA", "", "row 100501, column 'IsA': the label is blank; write 0 or 1"),
    ],
)
def test_errors_in_the_last_block_are_reported(
    tmp_path: Path, column: str, value: str, expected: str
) -> None:
    frame = make_frame()
    frame.loc[100_500, column] = value
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        read_comments(tmp_path / "t.parquet")
    (problem,) = caught.value.problems
    assert expected in problem


def test_label_columns_depend_on_all_blocks(tmp_path: Path) -> None:
    """By the first block alone, IsMost would not be a label column and note would be one."""
    path = tmp_path / "t.parquet"
    frame = make_frame()
    frame["IsMost"] = ["never mind"] * 50_000 + ["1"] * (ROWS - 50_000)
    frame["note"] = ["1"] * 50_000 + ["some words"] * (ROWS - 50_000)
    frame.to_parquet(path)
    with pytest.raises(DataError, match="column 'IsMost': a text of 10 characters is no") as caught:
        read_comments(path)
    assert len(caught.value.problems) == 10
    comments = read_comments(path, ColumnSettings(labels=("IsA", "IsLate")))
    assert comments.ignored_columns == ("note", "IsMost")


def test_json_keys_may_be_absent_from_blocks(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(ROWS):
            extra = {"early": row} if row < 50_000 else {"late": 1}
            file.write(json.dumps({"text": f"t{row}", **extra, "IsA": row % 2}) + "\n")
    frame = read_strings(path)
    assert frame.columns.tolist() == ["text", "early", "IsA", "late"]
    assert frame["late"].isna().tolist() == [row < 50_000 for row in range(ROWS)]
    assert frame["early"].isna().tolist() == [row >= 50_000 for row in range(ROWS)]
    with pytest.raises(DataError, match="row 1, column 'late': the label is blank"):
        read_comments(path)
