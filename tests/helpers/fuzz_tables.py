"""Fuzzing of the command line with damaged tables and invalid options."""

import contextlib
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from encodings.aliases import aliases
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toxbench.cli.main import main
from toxbench.data.readers.input_file import MAX_PROBLEMS

SUFFIXES = ("csv", "tsv", "jsonl", "parquet")
DELIMITERS = {"csv": ",", "tsv": "\t"}
HEADER = ("id", "text", "IsA", "IsB", "part")
CODECS = sorted({*aliases.values(), "utf-8-sig", "utf-9", "", "a\0b", "idna", "raw_unicode_escape"})
LIKELY_CODECS = 5 * (
    "utf-7", "utf-16", "utf-32", "unicode_escape", "raw_unicode_escape", "cp1252", "hz",
)  # fmt: skip
# Byte strings that are inserted into files of any kind.
FRAGMENTS = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xf0\x9f\x98", b'"', b'""',
    b",", b"\t", b";", b"'", b"\n", b"\r", b"\r\n", b"\n\n", b"\\", b"\\ud800", b"\\u0000", b"{",
    b"}", b"[", b"]", b"null", b"NaN", b"-1", b"2", b"1.5", b"yes", b"1e999", b" ", b"\xc2\x85",
    b"\xe2\x80\xa8", b"\x1b[2J", b"\xe2\x80\xae", b"PAR1", b"9" * 5000, b"x" * 140_000,
    b"+2AA-", b"[" * 3000, b'{"a":' * 3000,
)  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """Content of a file, and the command and options that read it."""

    suffix: str
    content: bytes
    command: str
    options: tuple[str, ...]


special_texts = [
    "NA", "null", "a,b", "a\tb", 'say "no"', "two\nlines", "a\r", "\0", "\x1b[2J", "\u202e", "🎬",
]  # fmt: skip
any_text = st.text(min_size=1, max_size=12).map("you {}".format)
valid_rows = st.tuples(
    st.one_of(st.sampled_from(special_texts), any_text),
    st.sampled_from(["0", "1", "true", "FALSE"]),
    st.sampled_from(["1", "0", " 1"]),
    st.sampled_from(["train", "train", "test", "dev"]),
)
invalid_rows = st.tuples(
    st.one_of(st.just(" "), st.text(max_size=3)),
    st.sampled_from(["", "yes", "2", "1.5", "-1", "nan", "0"]),
    st.sampled_from(["no", "1.0", "\0", "1"]),
    st.sampled_from(["", "tset", "VALID"]),
)


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[str, ...]]:
    """Draw rows with ids; most tables have no invalid row."""
    min_size = draw(st.sampled_from([0, 1, 6, 6, 6]))
    rows = draw(st.lists(valid_rows, min_size=min_size, max_size=9))
    if draw(st.integers(0, 3)) == 0:
        rows = draw(st.permutations([*rows, *draw(st.lists(invalid_rows, max_size=2))]))
    return [(f"c{i}", *row) for i, row in enumerate(rows)]


def to_delimited(suffix: str, table: list[tuple[str, ...]], quoting: int) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=DELIMITERS[suffix], quoting=quoting).writerows([HEADER, *table])
    return file.getvalue().encode("utf-8", "surrogatepass")


def to_json_lines(table: list[tuple[str, ...]], typed: bool) -> bytes:
    def value(text: str) -> object:
        return {"0": 0, "1": 1, "true": True, "": None, "2": [2]}.get(text, text) if typed else text

    lines = [json.dumps(dict(zip(HEADER, map(value, row), strict=True))) for row in table]
    return "\n".join(lines).encode()


def to_parquet(table: list[tuple[str, ...]], typed: bool) -> bytes:
    columns: dict[str, Any] = {
        name: [row[i].encode("utf-8", "replace").decode() for row in table]
        for i, name in enumerate(HEADER)
    }
    if typed:
        columns["IsA"] = pa.array([value in {"1", "true"} for value in columns["IsA"]])
        columns["IsB"] = pa.array([None if v == "" else len(v) for v in columns["IsB"]], pa.int8())
        columns["odd"] = pa.array([{"a": [1.5, None]}] * len(table))
    file = io.BytesIO()
    # Small and uncompressed, so that a changed byte is probably in a text.
    pq.write_table(
        pa.table(columns), file, compression="none", use_dictionary=False, write_statistics=False,
        store_schema=False,
    )  # fmt: skip
    return file.getvalue()


@st.composite
def contents(draw: st.DrawFn, suffix: str) -> bytes:
    """Draw the content of a file with a valid or nearly valid table."""
    table = draw(tables())
    if suffix in DELIMITERS:
        return to_delimited(
            suffix, table, draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        )
    convert = to_json_lines if suffix == "jsonl" else to_parquet
    return convert(table, draw(st.booleans()))


def _flip_bit(content: bytes, at: int, fragment: bytes) -> bytes:
    return content[:at] + bytes([content[at] ^ (1 << fragment[0] % 8)]) + content[at + 1 :]


def _in_one_line(change: Callable[[list[bytes], int, bytes], list[bytes]]) -> Any:
    """Return a function that applies a change of fields to one line of a file."""

    def apply(content: bytes, at: int, fragment: bytes) -> bytes:
        lines = content.split(b"\n")
        line = at % len(lines)
        delimiter = b"\t" if b"\t" in lines[line] else b","
        fields = lines[line].split(delimiter)
        lines[line] = delimiter.join(change(fields, at % len(fields), fragment))
        return b"\n".join(lines)

    return apply


def _reencode(content: bytes, at: int, fragment: bytes) -> bytes:
    codec = ("utf-16", "utf-32", "utf-7", "utf-8-sig", "cp037")[at % 5]
    return content.decode("utf-8", "replace").encode(codec, "replace")


DAMAGE: tuple[Callable[[bytes, int, bytes], bytes], ...] = (
    _flip_bit,
    lambda content, at, fragment: content[:at] + fragment + content[at:],
    lambda content, at, fragment: content[:at] + content[at + len(fragment) :],
    lambda content, at, fragment: content[:at],
    lambda content, at, fragment: content[at:],
    lambda content, at, fragment: content + content[at:],
    lambda content, at, fragment: content.partition(b"\n")[2] or content,
    lambda content, at, fragment: content.replace(b",", fragment[:1]),
    lambda content, at, fragment: content.replace(b"\n", b"\r"),
    lambda content, at, fragment: content.replace(b"\n", b"\r\n"),
    lambda content, at, fragment: content.replace(b"you ", fragment),
    lambda content, at, fragment: content.replace(b"you ", fragment[:4].ljust(4)),
    lambda content, at, fragment: content[:at] + fragment + content[at + len(fragment) :],
    _reencode,
    _in_one_line(lambda fields, at, fragment: fields[:at] + fields[at + 1 :]),
    _in_one_line(lambda fields, at, fragment: [*fields, fragment]),
    _in_one_line(lambda fields, at, fragment: [*fields[:at], fragment, *fields[at + 1 :]]),
    _in_one_line(lambda fields, at, fragment: [*fields[:at], fields[at - 1], *fields[at + 1 :]]),
)

names = st.sampled_from([*HEADER, "ID", "Text", "", "nope", "\x1b[31m", "you fool"])
words = st.lists(st.sampled_from(["yes", "2", "1.5", "-1", "0", "true", " ", "no"]), max_size=3)
option = st.one_of(
    st.tuples(st.just("--encoding"), st.sampled_from([*CODECS, *LIKELY_CODECS])),
    st.tuples(st.sampled_from(["--text-column", "--id-column", "--group-column"]), names),
    st.tuples(st.just("--labels"), st.lists(names, max_size=3).map(",".join)),
    st.tuples(st.sampled_from(["--true-values", "--false-values"]), words.map(",".join)),
    st.just(("--drop-empty",)),
)
split = st.sampled_from([(), ("--split", "grouped"), ("--split", "stratified", "--folds", "3")])


def draw_rarely(draw: st.DrawFn) -> bool:
    """Return True once in ten."""
    return draw(st.integers(0, 9)) == 9


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    """Draw a damaged file, a command, and options that may be invalid."""
    suffix = draw(st.sampled_from(SUFFIXES))
    content = draw(st.binary(max_size=200) if draw_rarely(draw) else contents(suffix))
    options: list[str] = []
    if suffix != "parquet" and draw_rarely(draw):
        codec = draw(st.sampled_from([*CODECS, *LIKELY_CODECS]))
        options = ["--encoding", codec]
        with contextlib.suppress(LookupError, UnicodeError, AttributeError, ValueError):
            content = content.decode().encode(codec, "replace")
    for change in draw(st.lists(st.sampled_from(DAMAGE), max_size=2)):
        if content:
            at = draw(st.integers(0, len(content) - 1))
            content = change(content, at, draw(st.sampled_from(FRAGMENTS)))
    if draw_rarely(draw):
        suffix = draw(st.sampled_from([*SUFFIXES, "ndjson", "CSV", "xlsx"]))
    if draw(st.integers(0, 2)) == 0:
        options += [word for pair in draw(st.lists(option, max_size=2)) for word in pair]
    command = draw(st.sampled_from(["show", "show", "check", "run"]))
    if command == "check":
        options += draw(split)
    elif command == "run":
        options += draw(st.sampled_from([("--split-column", "part"), ("--folds", "2"), ()]))
    return Attempt(suffix, content, command, tuple(options))


def run_command(folder: Path, attempt: Attempt) -> tuple[int, str, str]:
    """Run the command in this process; return its exit code, stdout and stderr."""
    path = folder / f"t.{attempt.suffix}"
    path.write_bytes(attempt.content)
    words = ["data", attempt.command, str(path)]
    if attempt.command == "run":
        words = ["run", "--data", str(path), "--backbones", "none", "--dry-run"]
        words += ["--results", str(folder / "results")]
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.raises(SystemExit) as stop,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        main([*words, *attempt.options])
    assert isinstance(stop.value.code, int)
    return stop.value.code, out.getvalue(), err.getvalue()


def fuzz(folder: Path, examples: int) -> None:
    """Try damaged files: each is read, or refused in at most ten lines."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(attempts())
    def check(attempt: Attempt) -> None:
        code, out, err = run_command(folder, attempt)
        lacks_package = attempt.suffix == "xlsx" and find_spec("openpyxl") is None
        assert code in ({0, 3, 2} if attempt.options or lacks_package else {0, 3}), err
        if code:
            lines = err.splitlines()
            assert 1 <= len(lines) <= MAX_PROBLEMS
            assert all(line.startswith("toxbench: error: ") for line in lines)
            assert out == ""
        for stream in (out, err):
            assert all(c.isprintable() or c == "\n" for c in stream), stream

    check()
