"""Reading of table files as strings.

Nothing is inferred: no missing values, numbers or booleans. A null becomes NA; every other cell
keeps the text in the file.
"""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from toxbench.errors import DataError
from toxbench.settings import FALSE_WORDS, TRUE_WORDS, normalize_word
from toxbench.util.text import safe_quote

if TYPE_CHECKING:
    import pandas as pd

Row = list[str]

MAX_PROBLEMS = 10
_MAX_COLUMNS_SHOWN = 8
# Unlikely as the name of a column: a table without a header has its first row there.
_VALUES = TRUE_WORDS | FALSE_WORDS | {"yes", "no", "1.0", "0.0"}
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_RENAME_ADVICE = {",": "rename it to end in .csv", "\t": "rename it to end in .tsv"}
_MAX_HEADER_BYTES = 1 << 16
_MAX_FIELD_BYTES = 1 << 30
_ROWS_PER_BLOCK = 50_000
_MAX_CATEGORIES = 127  # so that a code fits into a byte


def read_strings(path: Path, encoding: str = "utf-8") -> "pd.DataFrame":
    """Read a table as text, with one string column for each column of the file.

    In a table of several blocks, columns with few distinct values, such as labels, are
    categories, which take one byte per row.

    Args:
        path: ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` or ``.ndjson``.
        encoding: of text files; a byte order mark is skipped.

    Raises:
        DataError: the file is missing, empty, of an unknown kind, not in that encoding or not
            rectangular.
    """
    import pandas as pd

    blocks = read_blocks(path, encoding)
    first, second = next(blocks, pd.DataFrame()), next(blocks, None)
    frame = first if second is None else _concatenate(chain([first, second], blocks))
    if frame.empty:
        raise DataError(f"{path}: there are no rows below the header")
    return frame


def read_blocks(
    path: Path, encoding: str = "utf-8", rows_per_block: int = _ROWS_PER_BLOCK
) -> Iterator["pd.DataFrame"]:
    """Yield a table block by block, in constant memory; otherwise as `read_strings`.

    Blocks of a JSON lines file may differ in columns, because an object need not have every key.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        suffixes = ", ".join(_READERS)
        raise DataError(f"{path}: unknown kind of file {path.suffix!a}; use one of {suffixes}")
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        yield from reader(path, encoding, rows_per_block)
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise DataError(f"{path}: cannot be read: {reason}") from error
    except UnicodeError as error:
        raise DataError(
            f"{path}: read as {encoding}, it contains invalid text ({_first_line(error)}); name "
            "its encoding with --encoding, or save it as UTF-8"
        ) from error


def printable_names(names: Iterable[str]) -> list[str]:
    """Return the names that a message may print; none if the header looks like a row."""
    names = list(names)
    if _is_row_of_values(names) or _is_text(names):
        return []
    return [name for name in names if safe_quote(name) == ascii(name)]


def format_columns(names: Iterable[str]) -> str:
    """Return the columns of a table as a list for a message."""
    names = list(names)
    if _is_row_of_values(names):
        return (
            f"{len(names)} without names (the first line looks like a row of values; put a line "
            "of column names above it)"
        )
    if _is_text(names):
        return f"a name of {len(names[0])} characters"
    quoted = [safe_quote(name) for name in names[:_MAX_COLUMNS_SHOWN]]
    return ", ".join([*quoted, "..."] if len(names) > _MAX_COLUMNS_SHOWN else quoted)


def _is_row_of_values(names: Iterable[str]) -> bool:
    return any(normalize_word(name) in _VALUES for name in names)


def _is_text(names: Sequence[str]) -> bool:
    """Return whether this may be the first line of a file with one comment per line."""
    return len(names) == 1 and len(names[0].split()) > 1


def _check_unique(path: Path, names: Sequence[str]) -> None:
    """Refuse a header with a repeated name; raises `DataError`."""
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is None:
        return
    if _is_row_of_values(names):
        columns = format_columns(names)
        raise DataError(f"{path}: two columns have the same name, among {columns}")
    raise DataError(
        f"{path}: column {safe_quote(repeated)} appears twice in the header; rename one"
    )


def _concatenate(blocks: Iterable["pd.DataFrame"]) -> "pd.DataFrame":
    """Concatenate blocks; cells of a column that a block lacks are missing."""
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    block_sizes: list[int] = []
    for block in blocks:
        for name in block.columns:
            if name not in columns:
                columns[name] = [_to_arrow([None] * size) for size in block_sizes]
            columns[name].append(_to_arrow(block[name]))
        block_sizes.append(len(block))
        for chunks in columns.values():
            if len(chunks) < len(block_sizes):
                chunks.append(_to_arrow([None] * len(block)))
    pa.default_memory_pool().release_unused()  # reading takes several times the table's memory
    return pd.DataFrame({name: _to_series(columns.pop(name)) for name in list(columns)})


def _to_arrow(values: Any) -> Any:
    """Return an Arrow array of strings, dictionary-encoded if few of them are distinct."""
    import pyarrow as pa

    strings = pa.array(values, pa.large_string(), from_pandas=True)
    encoded = strings.dictionary_encode()
    return encoded if len(encoded.dictionary) <= _MAX_CATEGORIES else strings


def _to_series(chunks: list[Any]) -> Any:
    """Return one column; categories if all chunks are dictionary-encoded."""
    import pyarrow as pa

    if all(isinstance(chunk, pa.DictionaryArray) for chunk in chunks):
        return pa.chunked_array(chunks).unify_dictionaries().to_pandas()
    return pa.chunked_array([chunk.cast(pa.large_string()) for chunk in chunks]).to_pandas()


def _frames(
    rows: Iterator[Any], rows_per_block: int, columns: list[str] | None = None
) -> Iterator["pd.DataFrame"]:
    """Yield rows as frames, so that few rows are Python objects at a time."""
    import pandas as pd

    for block in iter(lambda: list(islice(rows, rows_per_block)), []):
        yield pd.DataFrame(block, columns=columns, dtype="str")


def _read_delimited(
    delimiter: str, path: Path, encoding: str, rows_per_block: int
) -> Iterator["pd.DataFrame"]:
    with _open_delimited(path, _check_encoding(path, encoding), delimiter) as (header, rows):
        _check_unique(path, header)
        yield from _frames(rows, rows_per_block, header)


@contextmanager
def _open_delimited(
    path: Path, encoding: str, delimiter: str
) -> Iterator[tuple[Row, Iterator[Row]]]:
    """Open a table; yield its header and an iterator over its rows.

    Raises:
        DataError: the header is missing, or another delimiter is likely. The iterator raises it
            for a row with unmatched quotes, and at the end for up to ten rows with more or fewer
            fields than the header.
    """
    limit = csv.field_size_limit(_MAX_FIELD_BYTES)
    try:
        with path.open(encoding=encoding, newline="") as file:
            hints = _delimiter_hints(file, path, delimiter)
            file.seek(0)
            records = _records(file, path, delimiter)
            _, header = next(records, (0, []))
            if not header:
                raise DataError(f"{path}: not a table: every line is blank")
            yield header, _rectangular_rows(records, len(header), path, hints)
    finally:
        csv.field_size_limit(limit)


def _records(file: TextIO, path: Path, delimiter: str) -> Iterator[tuple[int, Row]]:
    """Yield each row with the line on which it starts; skip blank lines."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    start_line = 1
    try:
        for row in reader:
            if row:
                yield start_line, row
            start_line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: line {start_line}: the row that starts there has a quote that is not closed, "
            f"or is closed within a field ({error}); check the quotes there and before, and double "
            "quotes that are part of a text"
        ) from error


def _rectangular_rows(
    records: Iterator[tuple[int, Row]], width: int, path: Path, hints: list[str]
) -> Iterator[Row]:
    """Yield rows of the right width; report all other rows at the end."""
    problems: list[str] = []
    for number, (line, row) in enumerate(records, start=1):
        if len(row) == width:
            yield row
        elif len(problems) < MAX_PROBLEMS:
            problems.append(
                f"{path}: row {number} (line {line}) has {len(row)} fields, the header has {width};"
                " correct the row, or check the quotes before it"
            )
    if problems:
        raise DataError([*hints, *problems][:MAX_PROBLEMS])


def _delimiter_hints(file: TextIO, path: Path, delimiter: str) -> list[str]:
    """Return a hint if another delimiter splits the first line into more columns.

    Raises:
        DataError: the delimiter of this kind of file finds only one column.
    """
    lines = iter(lambda: file.readline(_MAX_HEADER_BYTES), "")
    header = next((line for line in lines if line.strip("\r\n")), "")
    fields = {mark: next(csv.reader([header], delimiter=mark), []) for mark in _DELIMITERS}
    best = max(fields, key=lambda mark: len(fields[mark]))
    count = len(fields[delimiter])
    if len(fields[best]) <= count:
        return []
    advice = _RENAME_ADVICE.get(best, "save it with commas as .csv, or with tabs as .tsv")
    hint = (
        f"{path}: {count} column{'s' * (count > 1)} found with {_DELIMITERS[delimiter]} "
        f"between fields, but {len(fields[best])} with {_DELIMITERS[best]}: "
        f"{format_columns(fields[best])}; {advice}"
    )
    if count == 1:
        raise DataError(hint)
    return [hint]


def _check_encoding(path: Path, encoding: str) -> str:
    """Decode the whole file once; return the encoding, in a form that skips a byte order mark.

    Raises:
        DataError: the encoding is unknown, or a byte is not in it; with the byte offset.
        UnicodeError: the decoded text is not valid Unicode.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # refuses codecs that are not for text
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise DataError(f"{path}: unknown text encoding {safe_quote(encoding)}") from error
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
                bad_byte = offset - pending + getattr(error, "start", 0)
                raise DataError(_encoding_message(path, encoding, bad_byte)) from error
            if not is_utf8:
                text.encode("utf-8")  # some encodings can represent half of a surrogate pair
            offset += len(chunk)
            if not chunk:
                return "utf-8-sig" if is_utf8 else name


def _encoding_message(path: Path, encoding: str, bad_byte: int) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    likely = "utf-16" if is_utf16 else "cp1252" if encoding != "cp1252" else "utf-8"
    return (
        f"{path}: byte {bad_byte} is not {encoding}; name the encoding, "
        f"for example --encoding {likely}, or save the file as UTF-8"
    )


def _read_parquet(path: Path, encoding: str, rows_per_block: int) -> Iterator["pd.DataFrame"]:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_unique(path, names)
            for batch in file.iter_batches(rows_per_block):
                yield pd.DataFrame({name: _to_text(batch.column(name)) for name in names})
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {_first_line(error)}") from error


def _to_text(column: Any) -> Any:
    """Convert a typed column to text: true -> 'true', 1 -> '1', null -> NA."""
    import pyarrow as pa

    try:
        text = column.cast(pa.string())
    except pa.ArrowNotImplementedError:  # Arrow cannot convert lists and structures to text
        text = pa.array([None if value is None else str(value) for value in column.to_pylist()])
    text.validate(full=True)  # a damaged file may contain invalid UTF-8
    return text.to_pandas().astype("str")


def _read_json_lines(path: Path, encoding: str, rows_per_block: int) -> Iterator["pd.DataFrame"]:
    with path.open(encoding=_check_encoding(path, encoding), newline="\n") as file:
        lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        rows = (_parse_json_row(path, number, line) for number, line in lines)
        yield from _frames(rows, rows_per_block)


def _parse_json_row(path: Path, number: int, line: str) -> dict[str, str | None]:
    location = f"{path}: line {number}"
    try:
        row = json.loads(line, object_pairs_hook=_unique_keys)
        if not isinstance(row, dict):
            raise DataError(f"{location}: not a JSON object; write one object per line")
        "".join(map(str, (*row, *row.values()))).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{location}: half of a surrogate pair stands alone; correct the text"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{location}: not valid JSON: {_first_line(error)}") from error
    return {key: None if value is None else str(value) for key, value in row.items()}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key appears twice in one object")
    return row


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_READERS: Mapping[str, Callable[[Path, str, int], Iterator["pd.DataFrame"]]] = {
    ".csv": partial(_read_delimited, ","),
    ".tsv": partial(_read_delimited, "\t"),
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}
