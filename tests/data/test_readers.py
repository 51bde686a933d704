"""Reading files as strings: nothing is inferred, and invalid files are refused with advice."""

import csv
import gzip
import json
import zipfile
from itertools import product
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toxbench.data.sources import read_blocks, read_strings
from toxbench.errors import DataError, SettingsError

SPECIAL_WORDS = [
    "NA", "N/A", "null", "NULL", "None", "nan", "NaN", "<NA>", "-", "True", "007", "1e3",
]  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def write_file(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def error_message(path: Path, encoding: str = "utf-8") -> str:
    """Return the error message for a file, after checking that it is one line with the path."""
    with pytest.raises(DataError) as caught:
        read_strings(path, encoding)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".CSV"])
def test_special_words_stay_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    frame = pd.DataFrame({"text": SPECIAL_WORDS, "n": SPECIAL_WORDS[::-1]})
    match suffix:
        case ".parquet":
            frame.to_parquet(path)
        case ".jsonl" | ".ndjson":
            frame.to_json(path, orient="records", lines=True)
        case _:
            frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    read = read_strings(path)
    assert read["text"].tolist() == SPECIAL_WORDS
    assert read["n"].tolist() == SPECIAL_WORDS[::-1]


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(texts.filter(bool), min_size=1, max_size=5))
@example(["a\r\nb", "\n", "\r", '"', 'a "b" c', "\x00", "\\", ",", "\u2028", "\x85", "\ufeff"])
def test_csv_texts_are_read_unchanged(
    tmp_path_factory: pytest.TempPathFactory, expected: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["text", "n"], *([text, "1"] for text in expected)])
    assert read_strings(path)["text"].tolist() == expected


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(texts, min_size=1, max_size=5))
@example(["\u2028", "\x85", "\r", "\n", "\x00", "\ufeff"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_texts_are_read_unchanged(
    tmp_path_factory: pytest.TempPathFactory, ascii_only: bool, expected: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    rows = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in expected]
    path.write_bytes("\n".join(rows).encode("utf-8"))
    assert read_strings(path)["text"].tolist() == expected


def test_numbers_and_booleans_become_text(tmp_path: Path) -> None:
    rows = '{"i": 1, "b": true, "n": null, "s": "x"}\n{"i": 0, "b": false, "s": "y"}\n'
    lines = read_strings(write_file(tmp_path, rows, "t.jsonl"))
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"i": [1, 0], "b": [True, False], "n": pa.nulls(2)}), path)
    for read in (lines, read_strings(path)):
        assert read["i"].tolist() == ["1", "0"]
        assert [value.lower() for value in read["b"]] == ["true", "false"]
        assert read["n"].isna().all()


def test_absent_json_keys_are_missing_cells(tmp_path: Path) -> None:
    read = read_strings(write_file(tmp_path, '{"a": "", "b": "x"}\n\n{"b": "y"}\n', "t.jsonl"))
    assert read["a"].isna().tolist() == [False, True]
    assert read["b"].tolist() == ["x", "y"]


def test_later_json_blocks_may_add_keys(tmp_path: Path) -> None:
    rows = [f'{{"a": {row}}}' for row in range(50_001)] + ['{"a": 50001, "late": "x"}']
    read = read_strings(write_file(tmp_path, "\n".join(rows), "t.jsonl"))
    assert read["a"].tolist() == [str(row) for row in range(50_002)]
    assert read["late"].notna().sum() == 1
    assert read.index.tolist() == list(range(50_002))


@pytest.mark.parametrize(
    ("name", "content"), [("t.csv", "text,a\nhi,1\n"), ("t.jsonl", '{"text": "hi", "a": 1}\n')]
)
def test_a_byte_order_mark_is_skipped(tmp_path: Path, name: str, content: str) -> None:
    read = read_strings(write_file(tmp_path, "\ufeff" + content, name))
    assert read.to_dict("list") == {"text": ["hi"], "a": ["1"]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "latin-1", "UTF-8"])
@pytest.mark.parametrize(
    ("name", "content"), [("t.csv", "text,a\ncafé,1\n"), ("t.jsonl", '{"text": "café", "a": 1}\n')]
)
def test_the_requested_encoding_is_used(
    tmp_path: Path, encoding: str, name: str, content: str
) -> None:
    read = read_strings(write_file(tmp_path, content.encode(encoding), name), encoding)
    assert read.to_dict("list") == {"text": ["café"], "a": ["1"]}


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
@pytest.mark.parametrize("prefix", ["", "é", "日本語 🎬 é", "\ufeff"])
@pytest.mark.parametrize("bad", [b"\xff", b"\xe9 t", b"\xed\xa0\x80", b"\xf0\x9f\x8e."])
def test_the_first_invalid_byte_is_located(
    tmp_path: Path, name: str, prefix: str, bad: bytes
) -> None:
    start = prefix.encode("utf-8") + b"text,a\n"
    message = error_message(write_file(tmp_path, start + bad + b",1\n\xff\n", name))
    assert f"byte {len(start)} is not utf-8" in message
    assert "--encoding cp1252" in message


@pytest.mark.parametrize("shift", range(-3, 4))
def test_a_character_across_two_chunks_is_located(tmp_path: Path, shift: int) -> None:
    start = b"text,a\n" + b"x" * ((1 << 20) - 7 - 2 + shift) + "🎬".encode()
    message = error_message(write_file(tmp_path, start + b"\xff,1\n"))
    assert f"byte {len(start)} is not" in message
    start = start[:-1]
    assert f"byte {len(start) - 3} is not" in error_message(write_file(tmp_path, start + b",1\n"))


def test_utf_16_is_recognised_by_its_mark(tmp_path: Path) -> None:
    message = error_message(write_file(tmp_path, "text,a\nhi,1\n".encode("utf-16")))
    assert "byte 0 is not utf-8" in message
    assert "--encoding utf-16" in message


@pytest.mark.parametrize("encoding", ["base64", "rot13", "punycode", "undefined", "zlib", "a\0b"])
def test_codecs_without_text_are_refused(tmp_path: Path, encoding: str) -> None:
    assert str(tmp_path) in error_message(write_file(tmp_path, "text,a\nh\u00e9,1\n"), encoding)


def test_utf_16_without_a_mark_is_refused(tmp_path: Path) -> None:
    assert "byte 0 is not utf-16" in error_message(write_file(tmp_path, "text,a\nhi,1\n"), "utf-16")


@pytest.mark.parametrize("spelling", ["utf-8", "utf_8", "U8", "utf-8-sig"])
def test_a_truncated_last_character_is_located(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfid,text,a\n1,hi,1\n2,ho\xc3")
    assert "byte 24 " in error_message(path, spelling)


def test_a_long_column_name_is_not_printed(tmp_path: Path) -> None:
    name = "you are a secret comment"
    message = error_message(write_file(tmp_path, f"some,{name},{name}\n1,2,3\n"))
    assert "secret" not in message
    assert "a name of 24 characters" in message


def test_a_binary_parquet_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": pa.array([b"a", b"\xff"], pa.binary())}), path)
    assert "not a readable Parquet file" in error_message(path)


@pytest.mark.faults(11)
def test_invalid_utf_8_in_parquet_is_refused(tmp_path: Path) -> None:
    buffers = pa.array([b"ab", b"\xff\xfe"], pa.binary()).buffers()
    broken = pa.Array.from_buffers(pa.string(), 2, buffers)
    pq.write_table(pa.table({"text": broken, "A": [1, 0]}), tmp_path / "t.parquet")
    assert "Invalid UTF8 sequence at string index 1" in error_message(tmp_path / "t.parquet")


def test_integers_with_a_null_stay_integers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"i": pa.array([2**53 + 1, None, 1], pa.int64())}), path)
    read = read_strings(path)["i"]
    assert read.isna().tolist() == [False, True, False]
    assert read[0] == str(2**53 + 1)


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    message = error_message(write_file(tmp_path, "text,a\nhi,1\n"), "utf-9")
    assert "unknown text encoding 'utf-9'" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv", "", "the file is empty"),
        ("t.parquet", "", "the file is empty"),
        ("t.csv", "text,a\n", "no rows below the header"),
        ("t.csv", "text,a", "no rows below the header"),
        ("t.jsonl", "\n\n", "no rows"),
        ("t.csv", "\n\n", "not a table"),
        ("t.csv", "text,a,text\nx,1,y\n", "column 'text' appears twice in the header; rename one"),
        ("t.tsv", "text\ta\ta\nx\t1\t1\n", "column 'a' appears twice in the header; rename one"),
        ("t.csv", "text,a\nx,1,\n", "row 1 (line 2) has 3 fields, the header has 2"),
        ("t.csv", "text,a\nx,1\ny,0,z\n", "row 2 (line 3) has 3 fields, the header has 2"),
        ("t.csv", 'text,a\nx,1\n"y,0\nz,1\n', "check the quotes"),
        ("t.csv", "id,text,a\n1,hi,1\n2,ho\n", "row 2 (line 3) has 2 fields, the header has 3"),
        ("t.tsv", "text\ta\tn\nx\t1\n", "row 1 (line 2) has 2 fields, the header has 3"),
        ("t.jsonl", '{"a": 1}\n[1]\n', "line 2: not a JSON object; each row is one object"),
        ("t.jsonl", '{"a": 1}\n\n{"a": \n', "line 3: not valid JSON"),
        ("t.jsonl", '{"a": 1, "a": 2}\n', "line 1: not valid JSON: a key appears twice"),
        ("t.jsonl", '{"\\ud800": 1}\n', "line 1: half of a surrogate pair stands alone"),
        ("t.jsonl", '{"a": "\\ud800"}\n', "line 1: half of a surrogate pair stands alone"),
        ("t.jsonl", "[" * 100_000, "line 1: not valid JSON"),
        ("t.parquet", "text,a\nx,1\n", "not a readable Parquet file"),
        ("t.xls", "text,a\nx,1\n", "unknown kind of file '.xls'; use one of .csv, .tsv,"),
        ("t", "text,a\nx,1\n", "unknown kind of file ''"),
        ("t.csv.gz", b"\x1f\x8b\x08\x00broken", "cannot be read"),
        ("t.csv", b"PK\x03\x04broken", "cannot be read"),
        ("t.feather", "text,a\nx,1\n", "not a readable Arrow file"),
        ("t.json", '[{"text": "x"}, 1]', "object 2: not a JSON object"),
    ],
)
def test_invalid_files_are_refused(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    assert expected in error_message(write_file(tmp_path, content, name))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    assert error_message(tmp_path / "none.csv").endswith("no such file")
    (tmp_path / "folder.csv").mkdir()
    assert error_message(tmp_path / "folder.csv").endswith("no such file")


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"text": pd.Series([], dtype="str")}).to_parquet(tmp_path / "t.parquet")
    assert "no rows" in error_message(tmp_path / "t.parquet")


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    read = read_strings(write_file(tmp_path, "\ntext,a\n\nx,1\n\n\ny,0\n\n"))
    assert read.to_dict("list") == {"text": ["x", "y"], "a": ["1", "0"]}
    assert read.index.tolist() == [0, 1]


FRAME = pd.DataFrame({"text": ["NA", "caf\u00e9", ""], "n": ["1", "0", "x"]}, dtype="str")


def write_kind(path: Path) -> None:
    """Write the frame in the format of the path's suffix."""
    match path.suffix:
        case ".csv" | ".txt":
            FRAME.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
        case ".json":
            FRAME.to_json(path, orient="records")
        case ".jsonl":
            FRAME.to_json(path, orient="records", lines=True)
        case ".parquet":
            FRAME.to_parquet(path)
        case ".feather":
            FRAME.to_feather(path)
        case ".arrow":
            table = pa.Table.from_pandas(FRAME)
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
        case ".xlsx":
            pytest.importorskip("openpyxl")
            FRAME.to_excel(path, index=False)


@pytest.mark.parametrize(
    ("suffix", "compression"),
    [
        (".xlsx", ""),
        *product(
            (".csv", ".txt", ".json", ".jsonl", ".parquet", ".feather", ".arrow"),
            ("", ".gz", ".zip", ".zst"),
        ),
    ],
)
def test_every_kind_can_be_compressed(tmp_path: Path, suffix: str, compression: str) -> None:
    plain, path = tmp_path / f"t{suffix}", tmp_path / f"t{suffix}{compression}"
    write_kind(plain)
    match compression:
        case ".gz":
            path.write_bytes(gzip.compress(plain.read_bytes()))
        case ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.write(plain, f"folder/{plain.name}")
        case ".zst":
            with pa.CompressedOutputStream(str(path), "zstd") as stream:
                stream.write(plain.read_bytes())
    read = read_strings(path)
    assert read["text"].fillna("").tolist() == ["NA", "caf\u00e9", ""]
    assert read["n"].tolist() == ["1", "0", "x"]


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".xlsx"])
def test_content_decides_before_the_name(tmp_path: Path, suffix: str) -> None:
    write_kind(tmp_path / f"t{suffix}")
    (tmp_path / f"t{suffix}").rename(tmp_path / "other.csv")
    assert read_strings(tmp_path / "other.csv")["n"].tolist() == ["1", "0", "x"]


def test_typed_cells_of_excel_become_text(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in ([None], [None, "text", "IsA", "n"], [None, "x", True, 1], [], [None, "y", 0, 2.5]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    read = read_strings(tmp_path / "t.xlsx")
    assert read.to_dict("list") == {"text": ["x", "y"], "IsA": ["True", "0"], "n": ["1", "2.5"]}


def test_excel_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kind(tmp_path / "t.xlsx")
    monkeypatch.setattr("toxbench.data.readers.formats.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'first: pip install "toxbench\[xlsx\]"'):
        read_strings(tmp_path / "t.xlsx")


def test_archives_of_several_files_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "text,a\nx,1\n")
        archive.writestr("__MACOSX/._a.csv", "")
    assert read_strings(tmp_path / "t.zip")["a"].tolist() == ["1"]
    with zipfile.ZipFile(tmp_path / "t.zip", "a") as archive:
        archive.writestr("b.csv", "text,a\nx,1\n")
    assert "the archive holds 2 files" in error_message(tmp_path / "t.zip")


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    content = gzip.compress(b"text,a\n" + b"x,1\n" * 5000)
    assert "cannot be read" in error_message(write_file(tmp_path, content[:60], "t.csv.gz"))


def test_very_many_columns_are_refused_early(tmp_path: Path) -> None:
    """Without a limit, a frame has all rows times all keys."""
    rows = [json.dumps({f"k{row}-{key}": 1 for key in range(200)}) for row in range(60)]
    path = write_file(tmp_path, "\n".join([*rows, "not JSON"]), "t.jsonl")
    assert "more than 10000 columns" in error_message(path)
    header = ",".join(f"k{number}" for number in range(10_001))
    assert "more than 10000 columns" in error_message(write_file(tmp_path, f"{header}\n1"))


def test_blocks_of_sparse_rows_are_small(tmp_path: Path) -> None:
    rows = (json.dumps({f"k{row % 1000}": row}) for row in range(8000))
    path = write_file(tmp_path, "\n".join(rows), "t.jsonl")
    assert [frame.shape for frame in read_blocks(path)] == [(5000, 1000), (3000, 1000)]
