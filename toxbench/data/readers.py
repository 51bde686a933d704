"""Files to tables of strings. Nothing is guessed here: no missing values, no numbers, no booleans.

A null is NA; everything else is the text that was written.
"""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from toxbench.errors import DataError
from toxbench.settings import FALSE_WORDS, TRUE_WORDS, normalize_word

if TYPE_CHECKING:
    import pandas as pd


MAX_PROBLEMS = 10
_COLUMNS_SHOWN = 8
_LONGEST_VALUE = 12
# Odd as the name of a column: a table without a header has its first row there.
_VALUES = TRUE_WORDS | FALSE_WORDS | {"yes", "no", "1.0", "0.0"}


def safe_name(name: str, kind: str = "a name") -> str:
    """Quote a column's name or an id for a message, unless it may be somebody's comment."""
    if len(name) > 32 or len(name.split()) > 3:
        return f"{kind} of {len(name)} characters"
    return ascii(name)


def safe_value(value: str) -> str:
    """Quote a bad value for a message, unless it may be somebody's comment."""
    if len(value) > _LONGEST_VALUE or len(value.split()) > 1:
        return f"a text of {len(value)} characters"
    return ascii(value)


def names_to_show(names: Iterable[str]) -> list[str]:
    """Return the names that a message may print; none where the header looks like a row."""
    names = list(names)
    if _is_a_row(names) or _is_a_text(names):
        return []
    return [name for name in names if safe_name(name) == ascii(name)]


def format_columns(names: Iterable[str]) -> str:
    """List the columns of a table for a message."""
    names = list(names)
    if _is_a_row(names):
        return (
            f"{len(names)} without names (the first line looks like a row of values; put a line "
            "of column names above it)"
        )
    if _is_a_text(names):
        return f"a name of {len(names[0])} characters"
    return ", ".join(
        [*map(safe_name, names[:_COLUMNS_SHOWN]), *["..."][: len(names) > _COLUMNS_SHOWN]]
    )


def check_unique(path: Path, names: Sequence[str]) -> None:
    """Refuse a header that says one name twice; raises `DataError`."""
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is None:
        return
    if _is_a_row(names):
        raise DataError(f"{path}: two columns have one name, among {format_columns(names)}")
    raise DataError(f"{path}: column {safe_name(repeated)} stands twice in the header; rename one")


def _is_a_text(names: Sequence[str]) -> bool:
    """Whether this may be the first line of a file of comments, one a line."""
    return len(names) == 1 and len(names[0].split()) > 1


def _is_a_row(names: Iterable[str]) -> bool:
    return any(normalize_word(name) in _VALUES for name in names)


_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_ENDINGS = {",": "rename it to end in .csv", "\t": "rename it to end in .tsv"}
_LONGEST_HEADER = 1 << 16

Row = list[str]


@contextmanager
def delimited_rows(
    path: Path, encoding: str, delimiter: str
) -> Iterator[tuple[Row, Iterator[Row]]]:
    """Open a table; yield its header, and its rows as an iterator that checks them on the way.

    Raises:
        DataError: there is no header, or another delimiter is likely; and from the iterator, with
            the line of the quotes that do not match, or with up to ten rows that have more or
            fewer fields than the header.
    """
    limit = csv.field_size_limit(1 << 30)
    try:
        with path.open(encoding=encoding, newline="") as file:
            suspicion = _other_delimiter(file, path, delimiter)
            file.seek(0)
            records = _records(file, path, delimiter)
            _, header = next(records, (0, []))
            if not header:
                raise DataError(f"{path}: not a table: every line is blank")
            yield header, _rectangular(records, len(header), path, suspicion)
    finally:
        csv.field_size_limit(limit)


def _records(file: TextIO, path: Path, delimiter: str) -> Iterator[tuple[int, Row]]:
    """Yield the line on which a row begins, and the row; blank lines are no rows."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    begin = 1
    try:
        for row in reader:
            if row:
                yield begin, row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: line {begin}: in the row that begins there, a quote does not end or ends "
            f"within a field ({error}); check the quotes there and before, and double those that "
            "are part of a text"
        ) from error


def _rectangular(
    records: Iterator[tuple[int, Row]], width: int, path: Path, suspicion: list[str]
) -> Iterator[Row]:
    """Yield rows; refuse those of another width in the end, all at once."""
    problems: list[str] = []
    for number, (line, row) in enumerate(records, start=1):
        if len(row) == width:
            yield row
        elif len(problems) < MAX_PROBLEMS:
            problems.append(
                f"{path}: row {number} (line {line}) has {len(row)} fields, the header has {width};"
                " mend the row, or check the quotes before it"
            )
    if problems:
        raise DataError([*suspicion, *problems][:MAX_PROBLEMS])


def _other_delimiter(file: TextIO, path: Path, delimiter: str) -> list[str]:
    """Say which other delimiter makes more columns of the first line, if one does.

    Raises:
        DataError: with the delimiter of this kind of file there is only one column.
    """
    lines = iter(lambda: file.readline(_LONGEST_HEADER), "")
    first = next((line for line in lines if line.strip("\r\n")), "")
    found = {each: next(csv.reader([first], delimiter=each), []) for each in _DELIMITERS}
    best = max(found, key=lambda each: len(found[each]))
    if len(found[best]) <= len(found[delimiter]):
        return []
    columns = len(found[delimiter])
    mend = _ENDINGS.get(best, "save it with commas as .csv, or with tabs as .tsv")
    said = (
        f"{path}: {columns} column{'s' * (columns > 1)} found with {_DELIMITERS[delimiter]} "
        f"between fields, but {len(found[best])} with {_DELIMITERS[best]}: "
        f"{format_columns(found[best])}; {mend}"
    )
    if columns == 1:
        raise DataError(said)
    return [said]


_ROWS_AT_ONCE = 50_000
_FEW_VALUES = 127


def read_strings(path: Path, encoding: str = "utf-8") -> "pd.DataFrame":
    """Read a table as text, one string column for each column of the file.

    Of a table of several blocks, columns with few different values, such as labels, are
    categories, which take a byte a row.

    Args:
        path: ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` or ``.ndjson``.
        encoding: of text files; a byte order mark is accepted.

    Raises:
        DataError: the file is missing, empty, of an unknown kind, not in that encoding or not
            rectangular.
    """
    import pandas as pd

    blocks = read_blocks(path, encoding)
    first, second = next(blocks, pd.DataFrame()), next(blocks, None)
    frame = first if second is None else _put_together(chain([first, second], blocks))
    if frame.empty:
        raise DataError(f"{path}: there are no rows below the header")
    return frame


def _put_together(blocks: Iterable["pd.DataFrame"]) -> "pd.DataFrame":
    """Put blocks below one another; where one lacks a column, its cells there are missing."""
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    rows: list[int] = []
    for block in blocks:
        for name in block.columns:
            if name not in columns:
                columns[name] = [_packed([None] * count) for count in rows]
            columns[name].append(_packed(block[name]))
        rows.append(len(block))
        for chunks in columns.values():
            if len(chunks) < len(rows):
                chunks.append(_packed([None] * len(block)))
    pa.default_memory_pool().release_unused()  # what reading took, several times the table
    return pd.DataFrame({name: _column(columns.pop(name)) for name in list(columns)})


def _packed(values: Any) -> Any:
    """Return an Arrow array of a block's strings: coded, where few of them are different."""
    import pyarrow as pa

    array = pa.array(values, pa.large_string(), from_pandas=True)
    coded = array.dictionary_encode()
    return coded if len(coded.dictionary) <= _FEW_VALUES else array


def _column(chunks: list[Any]) -> "pd.Series[Any]":
    import pyarrow as pa

    if all(isinstance(chunk, pa.DictionaryArray) for chunk in chunks):
        whole = pa.chunked_array(chunks).unify_dictionaries()
    else:
        whole = pa.chunked_array([chunk.cast(pa.large_string()) for chunk in chunks])
    column: pd.Series[Any] = whole.to_pandas()
    return column


def read_blocks(
    path: Path, encoding: str = "utf-8", rows_at_once: int = _ROWS_AT_ONCE
) -> Iterator["pd.DataFrame"]:
    """Yield a table block by block, in constant memory; otherwise as `read_strings`.

    A JSON object need not have every key, so that blocks of such a file may differ in columns.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise DataError(f"{path}: unknown kind of file {path.suffix!a}; use one of {known}")
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        yield from reader(path, encoding, rows_at_once)
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise DataError(f"{path}: cannot be read: {reason}") from error
    except UnicodeError as error:
        raise DataError(
            f"{path}: read as {encoding}, it holds what is no text ({_first_line(error)}); say "
            "what it is with --encoding, or save it as UTF-8"
        ) from error


def _read_csv(path: Path, encoding: str, rows_at_once: int) -> Iterator["pd.DataFrame"]:
    return _read_delimited(path, encoding, ",", rows_at_once)


def _read_tsv(path: Path, encoding: str, rows_at_once: int) -> Iterator["pd.DataFrame"]:
    return _read_delimited(path, encoding, "\t", rows_at_once)


def _read_delimited(
    path: Path, encoding: str, delimiter: str, rows_at_once: int
) -> Iterator["pd.DataFrame"]:
    with delimited_rows(path, _checked_encoding(path, encoding), delimiter) as (header, rows):
        check_unique(path, header)
        yield from _frames(rows, rows_at_once, header)


def _frames(
    rows: Iterator[Any], rows_at_once: int, columns: list[str] | None = None
) -> Iterator["pd.DataFrame"]:
    """Put rows together block by block, so that few of them are Python objects at once."""
    import pandas as pd

    for block in iter(lambda: list(islice(rows, rows_at_once)), []):
        yield pd.DataFrame(block, columns=columns, dtype="str")


def _checked_encoding(path: Path, encoding: str) -> str:
    """Decode the file once; return the encoding under which a byte order mark is skipped.

    Raises:
        DataError: with the byte offset of the first undecodable byte.
        UnicodeError: what it decodes to is no text.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # refuses what is none for texts
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise DataError(f"{path}: there is no text encoding called {encoding!r}") from error
    is_utf8 = name in {"utf-8", "utf-8-sig"}
    decoder = codecs.getincrementaldecoder("utf-8" if is_utf8 else name)()
    offset = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(1 << 20)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                at = offset - pending + getattr(error, "start", 0)
                raise DataError(_encoding_message(path, encoding, at)) from error
            if not is_utf8:
                text.encode("utf-8")  # some encodings can write half of a surrogate pair
            offset += len(chunk)
            if not chunk:
                return "utf-8-sig" if is_utf8 else name


def _encoding_message(path: Path, encoding: str, at: int) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    likely = "utf-16" if utf16 else "cp1252" if encoding != "cp1252" else "utf-8"
    return (
        f"{path}: byte {at} is not {encoding}; say what it is, "
        f"for example --encoding {likely}, or save the file as UTF-8"
    )


def _read_parquet(path: Path, encoding: str, rows_at_once: int) -> Iterator["pd.DataFrame"]:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            check_unique(path, names)
            for batch in file.iter_batches(rows_at_once):
                yield pd.DataFrame({name: _as_text(batch.column(name)) for name in names})
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {_first_line(error)}") from error


def _as_text(column: Any) -> "pd.Series[Any]":
    """Write a typed column as text: true -> 'true', 1 -> '1', null -> NA."""
    import pyarrow as pa

    try:
        text = column.cast(pa.string())
    except pa.ArrowNotImplementedError:  # lists and structures have no text of their own
        text = pa.array([None if value is None else str(value) for value in column.to_pylist()])
    text.validate(full=True)  # a damaged file may hold what is not UTF-8
    series: pd.Series[Any] = text.to_pandas().astype("str")
    return series


def _read_json_lines(path: Path, encoding: str, rows_at_once: int) -> Iterator["pd.DataFrame"]:
    with path.open(encoding=_checked_encoding(path, encoding), newline="\n") as file:
        lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        yield from _frames((_json_row(path, number, line) for number, line in lines), rows_at_once)


def _json_row(path: Path, number: int, line: str) -> dict[str, str | None]:
    where = f"{path}: line {number}"
    try:
        row = json.loads(line, object_pairs_hook=_no_repeats)
        if not isinstance(row, dict):
            raise DataError(f"{where}: not a JSON object; write one object a line")
        "".join(map(str, (*row, *row.values()))).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: half of a surrogate pair stands alone; mend the text") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {_first_line(error)}") from error
    return {key: None if value is None else str(value) for key, value in row.items()}


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return row


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_READERS: Mapping[str, Callable[[Path, str, int], Iterator["pd.DataFrame"]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}
