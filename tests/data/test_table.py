"""The validated table: finding of columns, parsing of labels, and error messages."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toxbench.data.protocol import Protocol
from toxbench.data.splits import draw_folds
from toxbench.data.table import TextDataset, doubtful_label_notes, left_out_notes, read_comments
from toxbench.errors import DataError
from toxbench.settings import ColumnSettings, SplitSettings
from toxbench.util.arrays import UNLABELLED
from toxbench.util.text import join_names, split_names

TEXTS = ["NA", "null", "None", 'he said "no", twice', "two\nlines\r\nand a\ttab", "café 🎬", " x "]
CONTENT = pd.DataFrame(
    {
        "CommentId": [f"c{row}" for row in range(7)],
        "VideoId": ["v1", "", "v1", "v2", "NA", "v2", "v3"],
        "Text": TEXTS,
        "IsA": ["0", "1", "true", "FALSE", "True", "false", "TRUE"],
        "IsB": list("1010001"),
        "likes": list("3141592"),
    },
    dtype="str",
)
TARGETS = [[0, 1], [1, 0], [1, 1], [0, 0], [1, 0], [0, 0], [1, 1]]

WRITERS: dict[str, Callable[[Path], object]] = {
    "csv": lambda path: CONTENT.to_csv(path, index=False, lineterminator="\n"),
    "tsv": lambda path: CONTENT.to_csv(path, index=False, sep="\t", lineterminator="\n"),
    "parquet": lambda path: CONTENT.to_parquet(path, index=False),
    "jsonl": lambda path: path.write_text(
        "".join(f"{json.dumps(row)}\n" for row in CONTENT.to_dict("records")), encoding="utf-8"
    ),
}


def write_file(folder: Path, content: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8"))
    return path


def read(folder: Path, content: str, **columns: object) -> TextDataset:
    return read_comments(write_file(folder, content), ColumnSettings.model_validate(columns))


def problems_of(folder: Path, content: str, **columns: object) -> list[str]:
    """Return the problems of a file, after checking that each starts with the path."""
    with pytest.raises(DataError) as caught:
        read(folder, content, **columns)
    problems = caught.value.problems
    assert str(caught.value) == "\n".join(problems)
    assert all(problem.startswith(f"{folder / 't.csv'}: ") for problem in problems)
    return problems


def rows(*lines: str) -> str:
    return "\n".join(["id,text,IsA,IsB", *lines]) + "\n"


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_table(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"same.{kind}"
    WRITERS[kind](path)
    comments = read_comments(path)
    assert comments.name == f"same.{kind}"
    assert comments.ids == tuple(f"c{row}" for row in range(7))
    assert comments.texts == tuple(TEXTS)
    assert comments.labels == ("IsA", "IsB")
    assert comments.targets.tolist() == TARGETS
    assert comments.targets.dtype == np.uint8
    assert comments.groups == ("v1", None, "v1", "v2", "NA", "v2", "v3")
    assert comments.ignored_columns == ("likes",)
    assert comments.columns == {"text": "Text", "id": "CommentId", "group": "VideoId"}
    assert comments.supports == {"IsA": 4, "IsB": 3}
    assert len(comments) == 7


@pytest.mark.parametrize("column", [[True, False], [1, 0]])
@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_typed_labels_are_accepted(tmp_path: Path, kind: str, column: list[object]) -> None:
    frame = pd.DataFrame({"text": ["x", "y"], "IsA": column})
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    assert read_comments(path).targets.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("true", 1),
        ("TRUE", 1),
        ("False", 0),
        ("fAlSe", 0),
        (" 1 ", 1),
        ("1.0", 1),
        ("0.00", 0),
    ],
)
def test_labels_are_case_insensitive(tmp_path: Path, value: str, expected: int) -> None:
    comments = read(tmp_path, rows("c1,x,1,1", f"c2,y,{value},0"))
    assert comments.targets.tolist() == [[1, 1], [expected, 0]]


@pytest.mark.parametrize(
    ("value", "problem", "advice"),
    [
        ("yes", "'yes' is not a label", "write 1, or map it with --true-values"),
        ("No", "'No' is not a label", "write 0, or map it with --false-values"),
        ("0.3", "'0.3' is not a label", "write 0 or 1, or name the smallest number that means 1"),
        ("None", "'None' is not a label", "write 0 or 1, or, where it means not labelled, leave"),
        ("-1", "'-1' is not a label", "write 0 or 1, or, where it means not labelled, leave"),
        ("2", "'2' is not a label", "write 0 or 1, map it with --true-values or --false-values"),
        (
            "1.5",
            "'1.5' is not a label",
            "write 0 or 1, map it with --true-values or --false-values",
        ),
        ("-2", "'-2' is not a label", "write 0 or 1, map it with --true-values or --false-values"),
        ("\uff11", r"'\uff11' is not a label", "write 0 or 1, map it"),
        ("\x1b[2J", r"'\x1b[2J' is not a label", "write 0 or 1, map it"),
        ("you fool", "a text of 8 characters is not a label", "write 0 or 1, map it"),
        ("", "the label is blank", "write 0 or 1"),
        ("  ", "the label is blank", "write 0 or 1"),
    ],
)
def test_invalid_labels_are_reported_with_advice(
    tmp_path: Path, value: str, problem: str, advice: str
) -> None:
    (message,) = problems_of(tmp_path, rows("c1,x,1,1", f"c2,y,0,{value}", "c3,z,1,0"))
    assert f": row 2, column 'IsB': {problem}; {advice}" in message


def test_long_invalid_labels_are_not_printed(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, rows("c1,x,1,1", "c2,y,0,what a sorry lot", "c3,z,1,0"))
    assert "sorry" not in problem
    assert "a text of 16 characters is not a label" in problem


def test_yes_and_no_are_reported_as_labels(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, "text,IsA\nx,yes\ny,no\n")
    assert [problem.rpartition("; ")[2] for problem in problems] == [
        "write 1, or map it with --true-values",
        "write 0, or map it with --false-values",
    ]


@pytest.mark.parametrize(("bad", "expected"), [(1, 1), (9, 9), (10, 10), (11, 10), (200, 10)])
def test_at_most_ten_problems_are_reported(tmp_path: Path, bad: int, expected: int) -> None:
    invalid = [f"c{row},x,1,2" for row in range(bad)]
    valid = [f"d{row},x,1,0" for row in range(bad + 1)]
    problems = problems_of(tmp_path, rows(*invalid, *valid))
    assert len(problems) == expected
    assert all(f"row {row}," in problem for row, problem in enumerate(problems, start=1))


def test_all_kinds_of_problems_are_reported(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path, rows("c1,x,1,0", "c1,  ,1,0", ",y,0,no", "c4,z,2,1", "c5,u,1,1")
    )
    messages = [problem.partition("t.csv: ")[2] for problem in problems]
    assert messages == [
        "row 2, column 'text': the text is empty; remove the row, or all such rows with "
        "--drop-empty",
        "row 3, column 'id': the id is blank; give the row one",
        "row 2, column 'id': the same id as in row 1; remove one, or name another column with "
        "--id-column, or none",
        "row 4, column 'IsA': '2' is not a label; write 0 or 1, map it with --true-values or "
        "--false-values, or name the label columns with --labels (for counts also --positive-from)",
        "row 3, column 'IsB': 'no' is not a label; write 0, or map it with --false-values",
    ]


def test_a_row_without_labels_is_reported(tmp_path: Path) -> None:
    assert "row 2" in problems_of(tmp_path, rows("c1,x,1,0", "c2,y,1", "c3,z,0,1"))[0]


def test_repeated_ids_name_the_first_row(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, rows("a,x,1,0", "b,x,1,0", "a,y,0,1", "b,y,1,0", "a,y,1,0"))
    messages = [problem.partition("column 'id': ")[2].partition(";")[0] for problem in problems]
    assert messages == [f"the same id as in row {first}" for first in (1, 2, 1)]


def test_blank_ids_are_not_repeated_ids(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, rows(",x,1,0", "a,x,1,0", ",x,0,1"))
    messages = [problem.partition("t.csv: ")[2] for problem in problems]
    assert messages == [
        f"row {row}, column 'id': the id is blank; give the row one" for row in (1, 3)
    ]


def test_ids_default_to_row_numbers(tmp_path: Path) -> None:
    comments = read(tmp_path, "text,IsA\nx,1\ny,0\n")
    assert comments.ids == ("1", "2")
    assert comments.groups is None
    assert comments.columns == {"text": "text", "id": None, "group": None}


def test_a_table_without_positives_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, rows("c1,x,0,0", "c2,y,0,false"))
    assert "no label has a positive row" in problem


def test_labels_without_positives_remain(tmp_path: Path) -> None:
    assert read(tmp_path, rows("c1,x,0,1", "c2,y,0,0")).supports == {"IsA": 0, "IsB": 1}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text_column": "txt"}, "no column is called 'txt'; did you mean 'text'?"),
        ({"id_column": "idd"}, "no column is called 'idd'; did you mean 'id'?"),
        ({"group_column": "isA"}, "no column is called 'isA'; did you mean 'IsA'?"),
        ({"labels": ("IsA", "IsC")}, "no column is called 'IsC'; did you mean 'Is"),
        ({"labels": ("IsA", "zzzzzz")}, "no column is called 'zzzzzz'"),
        ({"labels": ("text",)}, "found no text column among 'id', 'text'"),
    ],
)
def test_an_unknown_column_suggests_the_nearest(
    tmp_path: Path, columns: dict[str, object], expected: str
) -> None:
    (problem,) = problems_of(tmp_path, rows("c1,x,1,0", "c2,y,0,1"), **columns)
    assert expected in problem
    assert ("did you mean" in problem) == ("did you mean" in expected)


def test_a_table_without_label_columns_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "text,likes,author\nx,3,ann\ny,12,bob\n")
    assert "found no label column" in problem
    assert "--labels" in problem


def test_columns_without_labels_are_ignored(tmp_path: Path) -> None:
    comments = read(
        tmp_path,
        "id,likes,text,author,IsA,blank,when,IsB\n"
        "c1,3,x,ann,1,,2020-01-01,0\nc2,12,y,bob,0,,2020-01-02,1\nc3,1,z,eve,0,,2020-01-03,0\n",
    )
    assert comments.labels == ("IsA", "IsB")
    assert comments.ignored_columns == ("likes", "author", "blank", "when")


def test_named_columns_override_detected_columns(tmp_path: Path) -> None:
    comments = read(
        tmp_path,
        "id,text,body,key,topic,IsA,IsB,IsC\n1,x,long x,k1,t1,1,0,1\n1,y,long y,k2,,0,1,1\n",
        text_column="body",
        id_column="key",
        group_column="topic",
        labels=("IsC", "IsA", "IsC"),
    )
    assert comments.texts == ("long x", "long y")
    assert comments.ids == ("k1", "k2")
    assert comments.groups == ("t1", None)
    assert comments.labels == ("IsC", "IsA")
    assert comments.targets.tolist() == [[1, 1], [1, 0]]
    assert comments.ignored_columns == ("id", "text", "IsB")


@pytest.mark.parametrize("name", ["Text", "COMMENT", "comment_text", "Comment Text", "tweet"])
def test_case_and_punctuation_of_names_are_ignored(tmp_path: Path, name: str) -> None:
    comments = read(tmp_path, f"{name},IsA\nx,1\ny,0\n")
    assert comments.columns["text"] == name
    assert comments.texts == ("x", "y")


def test_numeric_columns_can_be_labels(tmp_path: Path) -> None:
    content = "text,IsA,score\nx,1,5\ny,0,7\n"
    assert read(tmp_path, content).labels == ("IsA",)
    assert "'5' is not a label" in problems_of(tmp_path, content, labels=("score",))[0]


@pytest.mark.parametrize(("start", "expected"), [(0.5, [1, 0, 1, 0]), (1.0, [0, 0, 1, 0])])
def test_shares_are_labels_from_a_number(tmp_path: Path, start: float, expected: list[int]) -> None:
    content = "text,share,IsA\nw,0.5,1\nx,1e-3,0\ny,1.0,0\nz,0,1\n"
    comments = read(tmp_path, content, positive_from=start)
    assert comments.labels == ("share", "IsA")
    assert comments.targets[:, 0].tolist() == expected
    (problem,) = problems_of(tmp_path, "text,share\nx,0.5\ny,0.25\nz,0\n")
    assert problem.endswith("shares as in 'share' need --positive-from 0.5")


def test_counts_are_labels_in_named_columns(tmp_path: Path) -> None:
    content = "text,votes\nx,3\ny,1\nz,0\nu,0\nv,-1\n"
    assert "'3' is not a label" in problems_of(tmp_path, content, positive_from=2)[0]
    problems = problems_of(tmp_path, content, positive_from=2, labels=("votes",))
    assert [problem.partition(": row ")[2][:28] for problem in problems] == [
        "5, column 'votes': '-1' is n"
    ]
    columns = {"labels": ("votes",), "unlabelled": ["-1"], "drop_unlabelled": True}
    comments = read(tmp_path, content, positive_from=2, **columns)
    assert comments.targets.tolist() == [[1], [0], [0], [0]]


@pytest.mark.parametrize("value", ["-1", "-1.0", "NONE", "NaN", "", "n/a"])
def test_unlabelled_rows_can_be_dropped(tmp_path: Path, value: str) -> None:
    content = rows("c1,x,1,1", f"c2,y,{value},{value}", f"c3,z,0,{value}", "c4,u,0,1")
    problems = problems_of(tmp_path, content)
    assert not any("-values" in problem for problem in problems)
    assert f"--unlabelled={value.lower().removesuffix('.0') or 'blank'}, and" in problems[0]
    words = [value or "blank"]
    comments = read(tmp_path, content, unlabelled=words, drop_unlabelled=True)
    assert comments.ids == ("c1", "c4")
    assert comments.dropped_rows == (2, 3)


def test_unlabelled_entries_are_neither_0_nor_1(tmp_path: Path) -> None:
    content = rows("c1,x,1,1", "c2,y,-1,-1", "c3,z,0,-1", "c4,u,0,1")
    comments = read(tmp_path, content, unlabelled=["-1"])
    assert comments.ids == ("c1", "c3", "c4")  # nothing can be learned from c2
    assert comments.codes.tolist() == [[1, 1], [0, UNLABELLED], [0, 1]]
    assert comments.targets.tolist() == [[1, 1], [0, 0], [0, 1]]
    zeros = read(tmp_path, rows("c1,x,1,1", "c3,z,0,0", "c4,u,0,1"))
    folds = draw_folds(zeros, SplitSettings(test_size=0.34, validation_size=0))
    assert Protocol(comments, folds).fingerprint != Protocol(zeros, folds).fingerprint
    assert list(left_out_notes(comments)) == [
        "rows that are left out, without a text or labels (--drop-empty, --unlabelled): 1",
        "rows without a label, left out of its loss and scores: IsB (1)",
    ]


def test_columns_of_mostly_unlabelled_rows_are_labels(tmp_path: Path) -> None:
    lines = [f"c{row},x,-1,-1" for row in range(20)]
    (problem, *_) = problems_of(tmp_path, rows("c90,x,1,0", *lines))
    assert "row 2, column 'IsA': '-1' is not a label" in problem


@pytest.mark.parametrize(
    ("header", "doubtful"),
    [
        ("text,rude,threat,is_retweet", ["is_retweet"]),
        ("text,hasUrl,rude,threat", ["hasUrl"]),
        ("text,rude,threat,verified", ["verified"]),
        ("read,text,author,rude,threat", ["read"]),
        ("text,IsRude,IsThreat,IsKind", []),
        ("text,rude,threat,island", []),
        ("rude,text,kind", []),
    ],
)
def test_doubtful_labels_are_pointed_out(tmp_path: Path, header: str, doubtful: list[str]) -> None:
    names = header.split(",")
    lines = [
        ",".join(f"word{row}" if name in {"text", "author"} else str(row % 2) for name in names)
        for row in range(4)
    ]
    content = "\n".join([header, *lines]) + "\n"
    comments = read(tmp_path, content)
    assert list(comments.doubtful_labels) == doubtful
    assert len(doubtful_label_notes(comments)) == len(doubtful)
    assert read(tmp_path, content, labels=comments.labels).doubtful_labels == ()


RATED = rows("c1,x,1,0", "c1,x,1,1", "c2,y,0,0", "c2,y,1,0")


def test_several_raters_are_hinted_at(tmp_path: Path) -> None:
    hint, *others = problems_of(tmp_path, RATED)
    assert "column 'id': 2 rows repeat an id, some with its text; if several raters" in hint
    assert "--id-column none --group-column 'id' --split grouped" in hint
    assert len(others) == 2


def test_ids_can_be_ignored_or_groups(tmp_path: Path) -> None:
    comments = read(tmp_path, RATED, id_column="none")
    assert (comments.ids, comments.groups) == (("1", "2", "3", "4"), None)
    assert comments.ignored_columns == ("id",)
    comments = read(tmp_path, RATED, group_column="id")
    assert (comments.ids, comments.groups) == (("1", "2", "3", "4"), ("c1", "c1", "c2", "c2"))


def test_names_with_commas_can_be_named(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    write_file(tmp_path, 'text,"rude, mild",kind,odd\nx,1,0,1\ny,0,1,0\n')
    result = cli("data", "show", "t.csv", "--labels", '"rude, mild",kind')
    assert "2 rows, 2 labels" in result.stdout
    assert "columns that are not used: 'odd'" in result.stdout
    names = ["a, b", 'say "x"', "c"]
    assert split_names(join_names(names)) == names
    assert split_names("a\nb, ,c") == ["a\nb", "c"]


def table_facts(path: Path) -> dict[str, object]:
    """Return numbers about a table, so that a failing test cannot print a comment."""
    comments = read_comments(path)
    groups = comments.groups or ()
    return {
        "rows": len(comments),
        "ids": len(set(comments.ids)),
        "shape": comments.targets.shape,
        "supports": comments.supports,
        "columns": comments.columns,
        "ignored": comments.ignored_columns,
        "without a label": int((~comments.targets.any(axis=1)).sum()),
        "groups": len(set(groups) - {None}),
        "without a group": [row for row, group in enumerate(groups) if group is None],
        "with newlines": sum("\n" in text for text in comments.texts),
        "start with one": sum(text.startswith("\n") for text in comments.texts),
        "longest": max(len(text) for text in comments.texts),
    }


def test_the_real_table_needs_no_flags(real_table: Path) -> None:
    assert table_facts(real_table) == {
        "rows": 1000,
        "ids": 1000,
        "shape": (1000, 12),
        "supports": {
            "IsToxic": 462, "IsAbusive": 353, "IsThreat": 21, "IsProvocative": 161,
            "IsObscene": 100, "IsHatespeech": 138, "IsRacist": 125, "IsNationalist": 8,
            "IsSexist": 1, "IsHomophobic": 0, "IsReligiousHate": 12, "IsRadicalism": 0,
        },
        "columns": {"text": "Text", "id": "CommentId", "group": "VideoId"},
        "ignored": (),
        "without a label": 538,
        "groups": 12,
        "without a group": list(range(870, 886)),
        "with newlines": 113,
        "start with one": 2,
        "longest": 4421,
    }  # fmt: skip
