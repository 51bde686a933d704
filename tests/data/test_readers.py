"""Files of strings: nothing is guessed, and what is not a table is refused with the way out."""

import csv
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toxbench.data.readers import read_strings
from toxbench.errors import DataError

LIKE_MISSING = [
    "NA",
    "N/A",
    "null",
    "NULL",
    "None",
    "nan",
    "NaN",
    "<NA>",
    "-",
    "True",
    "007",
    "1e3",
]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def put(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def refusal(path: Path, encoding: str = "utf-8") -> str:
    """What the reader says against a file, after checking that it names it, on one line."""
    with pytest.raises(DataError) as caught:
        read_strings(path, encoding)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".CSV"])
def test_words_for_missing_stay_the_text_that_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    frame = pd.DataFrame({"text": LIKE_MISSING, "n": LIKE_MISSING[::-1]})
    match suffix:
        case ".parquet":
            frame.to_parquet(path)
        case ".jsonl" | ".ndjson":
            frame.to_json(path, orient="records", lines=True)
        case _:
            frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    read = read_strings(path)
    assert read["text"].tolist() == LIKE_MISSING
    assert read["n"].tolist() == LIKE_MISSING[::-1]


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(texts.filter(bool), min_size=1, max_size=5))
@example(["a\r\nb", "\n", "\r", '"', 'a "b" c', "\x00", "\\", ",", "\u2028", "\x85", "\ufeff"])
def test_csv_gives_back_every_text_that_was_written(
    tmp_path_factory: pytest.TempPathFactory, written: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["text", "n"], *([text, "1"] for text in written)])
    assert read_strings(path)["text"].tolist() == written


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(texts, min_size=1, max_size=5))
@example(["\u2028", "\x85", "\r", "\n", "\x00", "\ufeff"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_lines_give_back_every_text_that_was_written(
    tmp_path_factory: pytest.TempPathFactory, ascii_only: bool, written: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    rows = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in written]
    path.write_bytes("\n".join(rows).encode("utf-8"))
    assert read_strings(path)["text"].tolist() == written


def test_numbers_and_booleans_of_typed_files_become_what_a_csv_would_hold(tmp_path: Path) -> None:
    rows = '{"i": 1, "b": true, "n": null, "s": "x"}\n{"i": 0, "b": false, "s": "y"}\n'
    lines = read_strings(put(tmp_path, rows, "t.jsonl"))
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"i": [1, 0], "b": [True, False], "n": pa.nulls(2)}), path)
    for read in (lines, read_strings(path)):
        assert read["i"].tolist() == ["1", "0"]
        assert [value.lower() for value in read["b"]] == ["true", "false"]
        assert read["n"].isna().all()


def test_a_cell_that_a_json_row_does_not_have_is_missing_and_an_empty_one_is_not(
    tmp_path: Path,
) -> None:
    read = read_strings(put(tmp_path, '{"a": "", "b": "x"}\n\n{"b": "y"}\n', "t.jsonl"))
    assert read["a"].isna().tolist() == [False, True]
    assert read["b"].tolist() == ["x", "y"]


def test_json_rows_past_the_first_block_keep_their_order_and_their_new_keys(tmp_path: Path) -> None:
    rows = [f'{{"a": {row}}}' for row in range(50_001)] + ['{"a": 50001, "late": "x"}']
    read = read_strings(put(tmp_path, "\n".join(rows), "t.jsonl"))
    assert read["a"].tolist() == [str(row) for row in range(50_002)]
    assert read["late"].notna().sum() == 1
    assert read.index.tolist() == list(range(50_002))


@pytest.mark.parametrize(
    ("name", "content"), [("t.csv", "text,a\nhi,1\n"), ("t.jsonl", '{"text": "hi", "a": 1}\n')]
)
def test_a_byte_order_mark_is_no_part_of_the_first_name(
    tmp_path: Path, name: str, content: str
) -> None:
    read = read_strings(put(tmp_path, "\ufeff" + content, name))
    assert read.to_dict("list") == {"text": ["hi"], "a": ["1"]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "latin-1", "UTF-8"])
@pytest.mark.parametrize(
    ("name", "content"), [("t.csv", "text,a\ncafé,1\n"), ("t.jsonl", '{"text": "café", "a": 1}\n')]
)
def test_a_named_encoding_is_used(tmp_path: Path, encoding: str, name: str, content: str) -> None:
    read = read_strings(put(tmp_path, content.encode(encoding), name), encoding)
    assert read.to_dict("list") == {"text": ["café"], "a": ["1"]}


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
@pytest.mark.parametrize("before", ["", "é", "日本語 🎬 é", "\ufeff"])
@pytest.mark.parametrize("bad", [b"\xff", b"\xe9 t", b"\xed\xa0\x80", b"\xf0\x9f\x8e."])
def test_the_first_byte_that_is_not_utf_8_is_named_by_its_offset(
    tmp_path: Path, name: str, before: str, bad: bytes
) -> None:
    start = before.encode("utf-8") + b"text,a\n"
    message = refusal(put(tmp_path, start + bad + b",1\n\xff\n", name))
    assert f"byte {len(start)} is not utf-8" in message
    assert "--encoding cp1252" in message


@pytest.mark.parametrize("shift", range(-3, 4))
def test_the_offset_is_right_where_a_character_lies_across_two_reads(
    tmp_path: Path, shift: int
) -> None:
    start = b"text,a\n" + b"x" * ((1 << 20) - 7 - 2 + shift) + "🎬".encode()
    message = refusal(put(tmp_path, start + b"\xff,1\n"))
    assert f"byte {len(start)} is not" in message
    start = start[:-1]
    assert f"byte {len(start) - 3} is not" in refusal(put(tmp_path, start + b",1\n"))


def test_utf_16_that_was_not_named_is_recognised_by_its_mark(tmp_path: Path) -> None:
    message = refusal(put(tmp_path, "text,a\nhi,1\n".encode("utf-16")))
    assert "byte 0 is not utf-8" in message
    assert "--encoding utf-16" in message


@pytest.mark.parametrize("encoding", ["base64", "rot13", "punycode", "undefined", "zlib", "a\0b"])
def test_what_is_no_encoding_of_texts_is_refused(tmp_path: Path, encoding: str) -> None:
    assert str(tmp_path) in refusal(put(tmp_path, "text,a\nh\u00e9,1\n"), encoding)


def test_utf16_without_its_mark_is_refused(tmp_path: Path) -> None:
    assert "byte 0 is not utf-16" in refusal(put(tmp_path, "text,a\nhi,1\n"), "utf-16")


@pytest.mark.parametrize("spelling", ["utf-8", "utf_8", "U8", "utf-8-sig"])
def test_the_offset_of_a_character_cut_off_at_the_end(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfid,text,a\n1,hi,1\n2,ho\xc3")
    assert "byte 24 " in refusal(path, spelling)


def test_a_long_name_in_a_header_is_not_printed(tmp_path: Path) -> None:
    said = refusal(put(tmp_path, "some,you are a secret comment,you are a secret comment\n1,2,3\n"))
    assert "secret" not in said
    assert "a name of 24 characters" in said


def test_a_parquet_column_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": pa.array([b"a", b"\xff"], pa.binary())}), path)
    assert "not a readable Parquet file" in refusal(path)


@pytest.mark.faults(11)
def test_a_parquet_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    buffers = pa.array([b"ab", b"\xff\xfe"], pa.binary()).buffers()
    broken = pa.Array.from_buffers(pa.string(), 2, buffers)
    pq.write_table(pa.table({"text": broken, "A": [1, 0]}), tmp_path / "t.parquet")
    assert "Invalid UTF8 sequence at string index 1" in refusal(tmp_path / "t.parquet")


def test_integers_beside_a_null_stay_integers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"i": pa.array([2**53 + 1, None, 1], pa.int64())}), path)
    read = read_strings(path)["i"]
    assert read.isna().tolist() == [False, True, False]
    assert read[0] == str(2**53 + 1)


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    assert "no text encoding called 'utf-9'" in refusal(put(tmp_path, "text,a\nhi,1\n"), "utf-9")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "", "the file is empty"),
        ("t.parquet", "", "the file is empty"),
        ("t.csv", "text,a\n", "no rows below the header"),
        ("t.csv", "text,a", "no rows below the header"),
        ("t.jsonl", "\n\n", "no rows"),
        ("t.csv", "\n\n", "not a table"),
        ("t.csv", "text,a,text\nx,1,y\n", "column 'text' stands twice in the header; rename one"),
        ("t.tsv", "text\ta\ta\nx\t1\t1\n", "column 'a' stands twice in the header; rename one"),
        ("t.csv", "text,a\nx,1,\n", "row 1 (line 2) has 3 fields, the header has 2"),
        ("t.csv", "text,a\nx,1\ny,0,z\n", "row 2 (line 3) has 3 fields, the header has 2"),
        ("t.csv", 'text,a\nx,1\n"y,0\nz,1\n', "check the quotes"),
        ("t.csv", "id,text,a\n1,hi,1\n2,ho\n", "row 2 (line 3) has 2 fields, the header has 3"),
        ("t.tsv", "text\ta\tn\nx\t1\n", "row 1 (line 2) has 2 fields, the header has 3"),
        ("t.jsonl", '{"a": 1}\n[1]\n', "line 2: not a JSON object; write one object a line"),
        ("t.jsonl", '{"a": 1}\n\n{"a": \n', "line 3: not valid JSON"),
        ("t.jsonl", '{"a": 1, "a": 2}\n', "line 1: not valid JSON: a key stands twice"),
        ("t.jsonl", '{"\\ud800": 1}\n', "line 1: half of a surrogate pair stands alone"),
        ("t.jsonl", '{"a": "\\ud800"}\n', "line 1: half of a surrogate pair stands alone"),
        ("t.jsonl", "[" * 100_000, "line 1: not valid JSON"),
        ("t.parquet", "text,a\nx,1\n", "not a readable Parquet file"),
        ("t.xlsx", "text,a\nx,1\n", "unknown kind of file '.xlsx'; use one of .csv, .tsv,"),
        ("t", "text,a\nx,1\n", "unknown kind of file ''"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    assert said in refusal(put(tmp_path, content, name))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.csv").endswith("no such file")
    (tmp_path / "folder.csv").mkdir()
    assert refusal(tmp_path / "folder.csv").endswith("no such file")


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"text": pd.Series([], dtype="str")}).to_parquet(tmp_path / "t.parquet")
    assert "no rows" in refusal(tmp_path / "t.parquet")


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    read = read_strings(put(tmp_path, "\ntext,a\n\nx,1\n\n\ny,0\n\n"))
    assert read.to_dict("list") == {"text": ["x", "y"], "a": ["1", "0"]}
    assert read.index.tolist() == [0, 1]
