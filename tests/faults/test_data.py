"""Tables that cannot be used unchanged: the messages and exit codes of the command."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import toxbench
from toxbench.config import build_run_settings, build_settings
from toxbench.data.load import load_dataset
from toxbench.data.table import TextDataset, read_comments
from toxbench.errors import DataError, SettingsError
from toxbench.settings import ColumnSettings, SplitSettings
from toxbench.store.cells import find_store

Command = Callable[..., tuple[int, str]]
BASELINES = ("--backbones", "none", "--quiet")
SURROGATE = '{"text": "x\\ud83d", "A": 1}\n{"text": "y", "A": 0}\n'


def put(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def rows(*lines: str, header: str = "id,text,IsA,IsB") -> str:
    return "\n".join([header, *lines]) + "\n"


FEW = ("c1,x,1,0", "c2,y,0,1")
MORE = ("d1,x,0,0", "d2,y,0,0")

REFUSED = [
    pytest.param("none.csv", None, (), ["no such file"], marks=pytest.mark.faults(1)),
    pytest.param("t.csv", "", (), ["the file is empty"], marks=pytest.mark.faults(1)),
    pytest.param("t.csv", rows(), (), ["no rows below the header"], marks=pytest.mark.faults(1)),
    pytest.param(
        "t.csv", rows("c1,caf\u00e9,1,0").encode("cp1252"), (),
        ["byte 22 is not utf-8", "--encoding cp1252"], marks=pytest.mark.faults(2),
    ),
    pytest.param(
        "t.csv", rows(*FEW, header="id,text,IsA,IsA"), (), ["'IsA' appears twice in the header"],
        marks=pytest.mark.faults(4),
    ),
    pytest.param(
        "t.csv", rows(*FEW), ("--labels", "IsA,Is_B"),
        ["no column is called 'Is_B'; did you mean 'IsB'?", "found 'id', 'text', 'IsA', 'IsB'"],
        marks=pytest.mark.faults(5),
    ),
    pytest.param(
        "t.csv", rows("c1,x,1,0,", "c2,y,0,1,"), (),
        ["row 1 (line 2) has 5 fields, the header has 4", "row 2 (line 3)"],
        marks=pytest.mark.faults(6),
    ),
    pytest.param(
        "t.csv", rows("c1,x,1,0", "c2,y"), (), ["row 2 (line 3) has 2 fields"],
        marks=pytest.mark.faults(7),
    ),
    pytest.param(
        "t.csv", rows("c1,x,1,0", 'c2,"y,0,1', "c3,z,0,1"), (),
        ["line 3: the row that starts there has a quote that is not closed"],
        marks=pytest.mark.faults(7),
    ),
    pytest.param(
        "t.csv", rows("c1,x,1,0", 'c2,"y,0,1', 'c3,"z",0,1'), (),
        ["line 3: the row that starts there has a quote"], marks=pytest.mark.faults(7),
    ),
    pytest.param(
        "t.csv", rows("c1,x,1,0", "c2,y,,1"), (),
        ["row 2, column 'IsA': the label is blank; write 0 or 1"], marks=pytest.mark.faults(8),
    ),
    pytest.param(
        "t.jsonl", '{"text": "x", "A": 1}\n{"text": "y", "A": null}\n{"text": "z"}\n', (),
        ["row 2, column 'A': the label is blank", "row 3, column 'A': the label is blank"],
        marks=pytest.mark.faults(8),
    ),
    pytest.param(
        "t.csv", rows("c1,x,yes,0", "c2,y,0,2", "c3,z,1,1.5", "c4,u,0,1", *MORE), (),
        ["'yes' is not a label; write 1, or map it with --true-values",
         "'2' is not a label; write 0 or 1, map it with --true-values or --false-values",
         "'1.5' is not a label"],
        marks=pytest.mark.faults(9),
    ),
    pytest.param(
        "t.csv", rows("c1, ,1,0", "c2,y,0,1"), (),
        ["row 1, column 'text': the text is empty; remove the row", "--drop-empty"],
        marks=pytest.mark.faults(10),
    ),
    pytest.param(
        "t.csv", rows("c1, ,1,0", "c2,,0,1"), ("--drop-empty",), ["no row has a text"],
        marks=pytest.mark.faults(10),
    ),
    pytest.param(
        "t.jsonl", SURROGATE, (), ["line 1: half of a surrogate pair"],
        marks=pytest.mark.faults(11),
    ),
    pytest.param(
        "t.csv", rows("c1,x+2AA-,1,0", "c2,y,0,1"), ("--encoding", "utf-7"),
        ["read as utf-7, it contains invalid text"], marks=pytest.mark.faults(11),
    ),
    pytest.param(
        "t.csv", rows("c1,x,1,0", "c1,y,0,1"), (),
        ["row 2, column 'id': the same id as in row 1"], marks=pytest.mark.faults(12),
    ),
    pytest.param(
        "t.csv", rows("c1,x,0,0", "c2,y,0,0"), (), ["no label has a positive row"],
        marks=pytest.mark.faults(13),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "options", "messages"), REFUSED)
def test_invalid_tables_exit_with_3(
    command: Command,
    tmp_path: Path,
    name: str,
    content: str | bytes | None,
    options: tuple[str, ...],
    messages: list[str],
) -> None:
    if content is not None:
        put(tmp_path, content, name)
    code, err = command("run", "--data", name, *BASELINES, *options)
    assert code == 3
    assert all(line.startswith(f"toxbench: error: {name}: ") for line in err.splitlines())
    for message in messages:
        assert message in err
    assert not (tmp_path / "results").exists()


# --- row 3: another delimiter


@pytest.mark.faults(3)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(
    ("name", "delimiter", "note"),
    [
        ("t.csv", ";", "semicolons"),
        ("t.csv", "|", "bars"),
        ("t.csv", "\t", "tabs"),
        ("t.tsv", ",", "commas"),
        ("t.txt", "\t", "tabs"),
        ("t.txt", ",", "commas"),
    ],
)
def test_other_delimiters_are_used_and_noted(
    tmp_path: Path, name: str, delimiter: str, note: str, quoting: int
) -> None:
    header, text = ["id", "text", "IsA", "IsB"], "a, b; c\td | e"
    lines = [header, ["c1", text, "1", "0"], ["c2", "f", "0", "1"]]
    with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=quoting).writerows(lines)
    comments = read_comments(tmp_path / name)
    assert comments.texts == (text, "f")
    assert comments.labels == ("IsA", "IsB")
    assert comments.notes == (f"fields are separated by {note}",)


@pytest.mark.faults(3)
def test_rows_decide_between_two_delimiters(tmp_path: Path) -> None:
    path = put(tmp_path, "id;a text, in short;IsA\nc1;x;1\nc2;y;0\n")
    comments = read_comments(path, ColumnSettings(text_column="a text, in short"))
    assert comments.texts == ("x", "y")
    with pytest.raises(DataError, match=r"row 1 \(line 2\) has 1 fields, the header has 3"):
        read_comments(put(tmp_path, "id;text;IsA\nc1\nc2;y;0\nc3;z;1\n"))


def test_delimiters_inside_fields_are_accepted(tmp_path: Path) -> None:
    path = put(tmp_path, 'text,"IsA;IsB;IsC|x|y"\n"a;b;c",1\nz,0\n')
    assert read_comments(path).texts == ("a;b;c", "z")


@pytest.mark.faults(3)
@pytest.mark.parametrize(
    "content",
    [
        "c1,fool,1,0\nc2,fools,0,1\n",
        "c1,fool,1,1\nc2,fools,0,1\n",
        "c1;fool;1;0\nc2;you fool;0;1\n",
        "c1\tyou fool\tTRUE\tFALSE\nc2\tfools\tFALSE\tTRUE\n",
        "c1,you fool,yes,no\nc2,fools,no,yes\n",
        "you fool\nyou fools\n",
        "you fool you fool\nyou fools\n",
    ],
)
def test_missing_header_prints_no_comment(tmp_path: Path, content: str) -> None:
    for options in ({}, {"text_column": "fools"}, {"labels": ("fool",)}):
        with pytest.raises(DataError) as caught:
            read_comments(put(tmp_path, content), ColumnSettings(**options))
        message = str(caught.value).replace("no column is called 'fool", "")
        assert "fool" not in message
        if "without names" in message:
            assert "put a line of column names above it" in message
        else:
            assert content.startswith("you")


# --- row 9: mapped words


WORDS = rows("c1,x,Yes,2", "c2,y,NO,-1", "c3,z, yes ,-1")
MAPPED = {"true_values": ["yes", "2"], "false_values": "no,-1"}


def mapped(path: Path, **columns: Any) -> TextDataset:
    return read_comments(path, build_settings(ColumnSettings, MAPPED, columns))


@pytest.mark.faults(9)
def test_mapped_words_work_in_every_interface(command: Command, tmp_path: Path) -> None:
    put(tmp_path, WORDS + "".join(f"d{i},text {i},{i % 2},0\n" for i in range(12)))
    put(tmp_path, 'data = "t.csv"\n[columns]\ntrue_values = ["yes", 2]\nfalse_values = "no,-1"\n',
        "c.toml")  # fmt: skip
    flags = ("--true-values", "yes,2", "--false-values", "no,-1")
    assert command("run", "--data", "t.csv", *flags, *BASELINES, "--results", "flags")[0] == 0
    assert command("run", "--config", "c.toml", *BASELINES, "--results", "toml")[0] == 0
    toxbench.run("t.csv", backbones=[], columns=MAPPED, results="python")
    protocols = [find_store(tmp_path / name).protocol() for name in ("flags", "toml", "python")]
    assert protocols[0] == protocols[1] == protocols[2]
    assert protocols[0].supports == {"IsA": 8, "IsB": 1}


@pytest.mark.faults(9)
def test_mapped_words_change_only_the_targets(tmp_path: Path) -> None:
    words = mapped(put(tmp_path, WORDS))
    plain = read_comments(put(tmp_path, rows("c1,x,1,1", "c2,y,0,0", "c3,z,1,0")))
    assert words.targets.tolist() == plain.targets.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert (words.texts, words.labels, words.ids) == (plain.texts, plain.labels, plain.ids)


@pytest.mark.faults(9)
def test_mapped_words_identify_label_columns(tmp_path: Path) -> None:
    path = put(tmp_path, rows("c1,x,ja,1", "c2,y,nein,0", "c3,z,ja,1", "c4,u,vielleicht,0"))
    assert read_comments(path).labels == ("IsB",)
    with pytest.raises(
        DataError, match="row 4, column 'IsA': 'vielleicht' is not a label"
    ) as caught:
        mapped(path, true_values="ja", false_values="nein")
    assert len(caught.value.problems) == 1


@pytest.mark.faults(9)
def test_mapped_words_apply_to_official_splits(tmp_path: Path) -> None:
    data, test = put(tmp_path, WORDS), put(tmp_path, WORDS.replace("c", "d"), "test.csv")
    columns = build_settings(ColumnSettings, MAPPED)
    source = load_dataset(data, columns, SplitSettings(test=test, validation_size=0))
    assert source.comments.targets.tolist() == [[1, 1], [0, 0], [1, 0]] * 2
    renamed = WORDS.replace("c", "d").replace("IsB", "IsX")
    with pytest.raises(DataError, match=r"label columns that are not in 't\.csv': 'IsX'"):
        load_dataset(data, columns, SplitSettings(test=put(tmp_path, renamed, "test.csv")))


@pytest.mark.faults(9)
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"true_values": ["yes"], "false_values": ["no", " YES "]}, "'yes' is among true_values"),
        ({"true_values": "FALSE"}, "'false' always means no"),
        ({"false_values": ["1"]}, "'1' always means yes"),
        ({"false_values": [" "]}, "a blank is never a label"),
        ({"true_values": 1}, "should be a valid tuple"),
        ({"true_value": "yes"}, "unknown setting 'columns.true_value'"),
    ],
)
def test_contradictory_mappings_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        build_run_settings({"columns": columns}, {})
    assert caught.value.exit_code == 2


@pytest.mark.faults(9)
def test_word_for_both_values_exits_with_2(command: Command, tmp_path: Path) -> None:
    put(tmp_path, WORDS)
    options = ("--true-values", "yes,ja", "--false-values", "Ja,nein")
    code, err = command("data", "show", "t.csv", *options)
    assert code == 2
    assert "'ja' is among true_values, too" in err


# --- row 10: rows without a text


GAPS = rows("c1,x,1,0", "c2,,0,1", "c3,NA,1,0", "c4, ,0,7", "c5,null,0,1", "c5,None,0,no")


@pytest.mark.faults(10)
def test_rows_without_text_are_dropped(tmp_path: Path) -> None:
    comments = read_comments(
        put(tmp_path, GAPS.replace("c5,None", "c6,None").replace("no", "0")),
        ColumnSettings(drop_empty=True),
    )
    assert comments.texts == ("x", "NA", "null", "None")
    assert comments.ids == ("c1", "c3", "c5", "c6")
    assert comments.targets.tolist() == [[1, 0], [1, 0], [0, 1], [0, 0]]
    assert comments.dropped_rows == (2, 4)
    assert comments.row_numbers.tolist() == [1, 3, 5, 6]


@pytest.mark.faults(10)
def test_row_numbers_count_dropped_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_comments(put(tmp_path, GAPS), ColumnSettings(drop_empty=True))
    problems = [problem.partition("t.csv: ")[2] for problem in caught.value.problems]
    assert [problem.partition(";")[0] for problem in problems] == [
        "row 6, column 'id': the same id as in row 5",
        "row 6, column 'IsB': 'no' is not a label",
    ]


@pytest.mark.faults(10)
def test_default_ids_are_row_numbers(tmp_path: Path) -> None:
    columns = ColumnSettings(drop_empty=True)
    first = put(tmp_path, "text,IsA\nx,1\n,0\ny,0\n", "a.csv")
    second = put(tmp_path, "text,IsA\n,1\nz,1\n", "b.csv")
    assert read_comments(first, columns).ids == ("1", "3")
    source = load_dataset(first, columns, SplitSettings(test=second, validation_size=0))
    assert source.comments.ids == ("1", "3", "5")
    assert source.comments.dropped_rows == (2, 4)


@pytest.mark.faults(10)
def test_duplicate_id_names_both_rows(tmp_path: Path) -> None:
    first = put(tmp_path, rows("c1,,1,0", "c2,x,1,0"), "a.csv")
    second = put(tmp_path, rows("d1,z,1,0", "d2,,1,0", "c2,x,1,0"), "b.csv")
    with pytest.raises(DataError, match=r"b.csv: row 3, column 'id': the same id as in row 2 of"):
        load_dataset(first, ColumnSettings(drop_empty=True), SplitSettings(test=second))


@pytest.mark.faults(10)
def test_split_column_drops_the_same_rows(tmp_path: Path) -> None:
    header, columns = "id,text,IsA,part", ColumnSettings(drop_empty=True)
    split = SplitSettings(split_column="part", validation_size=0)
    path = put(tmp_path, rows("c1,x,1,train", "c2,,0,invalid", "c3,y,0,test", header=header))
    (fold,) = load_dataset(path, columns, split).folds
    assert (fold.train.tolist(), fold.test.tolist()) == ([0], [1])
    path = put(tmp_path, rows("c1,x,1,train", "c2,,0,test", "c3,y,0,tset", header=header))
    with pytest.raises(DataError, match="row 3, column 'part': 'tset' is not a part"):
        load_dataset(path, columns, split)


@pytest.mark.faults(10)
def test_run_warns_once_of_dropped_rows(command: Command, tmp_path: Path) -> None:
    lines = [f"c{i},{'' if i % 4 == 0 else 'NA'},{i % 2},1" for i in range(40)]
    put(tmp_path, rows(*lines))
    put(tmp_path, "[columns]\ndrop_empty = true\n", "c.toml")
    words = ("run", "--data", "t.csv", "--backbones", "none", "--split-file", "s.json")
    code, err = command(*words, "--drop-empty")
    assert (code, err.count("without a text")) == (0, 1)
    assert "rows that are left out, without a text or labels (--drop-empty, --unlabelled" in err
    code, err = command(*words, "--config", "c.toml", "--dry-run")
    assert (code, err.count("1 cell, 1 stored already")) == (0, 2)
    assert command(*words)[0] == 3


# --- row 11: odd comments


ODD = [
    "\0", "a\0b\x1b[31m\x07", "\u202efool\u2066", "\ufeff", "\u200b", "\ufffd", "\U0010ffff",
    "\ue000",
    "\U0001f3ac", "\U0001f469\u200d\U0001f467", "e\u0301" * 50, "[MASK]", '"', "\\", "<script>",
    "x " * 524_288,
]  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the odd comments, each of them twice."""
    lines = [
        json.dumps({"text": text, "IsA": row % 2, "IsB": int(row % 3 == 0)})
        for row, text in enumerate(ODD * 2)
    ]
    return put(tmp_path_factory.mktemp("odd"), "\n".join(lines), "odd.jsonl")


@pytest.mark.faults(11)
def test_run_accepts_odd_comments(
    command: Command, odd: Path, checkpoint: Path, tmp_path: Path
) -> None:
    weights = ("--weights", f"bert={checkpoint}", "--epochs", "1", "--max-length", "16")
    code, err = command("run", "--data", str(odd), "--backbones", "bert", *weights)
    assert code == 0, err
    assert all(c.isprintable() or c == "\n" for c in err)
    assert {r.key.candidate for r in find_store(tmp_path / "results").records()} == {
        "bert", "tfidf-logreg", "always-negative",
    }  # fmt: skip


@pytest.mark.faults(11)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_odd_comments_are_read_unchanged(odd: Path, tmp_path: Path, kind: str) -> None:
    frame = pd.read_json(odd, lines=True, orient="records")
    path = tmp_path / f"t.{kind}"
    frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False)
    assert read_comments(path).texts == read_comments(odd).texts == tuple(ODD * 2)


@pytest.mark.faults(11)
@pytest.mark.parametrize("count", [12, 150])  # at 150 rare n-grams are dropped
def test_run_accepts_comments_of_emoji(command: Command, tmp_path: Path, count: int) -> None:
    faces = [chr(0x1F600 + row % 80) + chr(0x1F300 + row) for row in range(count)]
    put(tmp_path, rows(*(f"{i},{face},{i % 2}" for i, face in enumerate(faces)),
                       header="id,text,IsA"))  # fmt: skip
    assert command("run", "--data", "t.csv", *BASELINES) == (0, "")


# --- rows 13 and 15: too few positives or rows


@pytest.mark.faults(13)
def test_labels_without_positives_are_not_scored(command: Command, table: Path) -> None:
    code, err = command("run", "--data", table.name, "--backbones", "none")
    assert code == 0
    assert "warning: no positive row, nothing to learn or score: IsNever" in err
    board = toxbench.load("results").leaderboard.set_index("candidate")
    assert board.loc["tfidf-logreg", "scored_labels"] == 2


@pytest.mark.faults(15)
@pytest.mark.parametrize("split", ["random", "stratified", "grouped"])
@pytest.mark.parametrize(("count", "folds"), [(1, 1), (2, 1), (1, 2), (4, 5), (9, 10)])
def test_too_few_rows_for_the_parts(
    command: Command, tmp_path: Path, split: str, count: int, folds: int
) -> None:
    put(tmp_path, rows(*(f"c{row},text {row},1,{row % 2}" for row in range(count))))
    words = ("run", "--data", "t.csv", *BASELINES, "--split", split, "--folds", str(folds))
    code, err = command(*words)
    assert code == 3
    assert "too few to split" in err
    assert "bring more rows, or change --folds" in err


@pytest.mark.faults(15)
@pytest.mark.parametrize("split", ["random", "stratified", "grouped"])
@pytest.mark.parametrize(("count", "message"), [(1, "too few to split"), (9, "too few to tune on")])
def test_too_few_rows_for_a_search(
    command: Command, tmp_path: Path, checkpoint: Path, split: str, count: int, message: str
) -> None:
    put(tmp_path, rows(*(f"c{row},text {row},1,{row % 2}" for row in range(count))))
    weights = ("--backbones", "bert", "--weights", f"bert={checkpoint}", "--quiet")
    code, err = command("tune", "--data", "t.csv", *weights, "--split", split)
    assert code == 3
    assert message in err
    assert "bring more rows" in err
