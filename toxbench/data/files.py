"""Files to tables of strings. Nothing is guessed here: no missing values, no numbers, no booleans.

A cell that is absent (a short row, a null) is NA; everything else is the text that was written.
"""

import codecs
import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from toxbench.errors import DataError

_JSON_ROWS_AT_ONCE = 50_000


def read_strings(path: Path, encoding: str = "utf-8") -> pd.DataFrame:
    """Read a table as text, one string column for each column of the file.

    Args:
        path: ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` or ``.ndjson``.
        encoding: of text files; a byte order mark is accepted.

    Raises:
        DataError: the file is missing, empty, of an unknown kind, not in that encoding or not
            rectangular.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}; use one of {known}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    frame = reader(path, encoding)
    if frame.empty:
        raise DataError(f"{path}: there are no rows below the header")
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise DataError(f"{path}: column {repeated[0]!r} stands twice in the header; rename one")
    return frame


def _read_csv(path: Path, encoding: str) -> pd.DataFrame:
    return _read_delimited(path, encoding, ",")


def _read_tsv(path: Path, encoding: str) -> pd.DataFrame:
    return _read_delimited(path, encoding, "\t")


def _read_delimited(path: Path, encoding: str, delimiter: str) -> pd.DataFrame:
    """Read with the header as an ordinary first row.

    That way pandas neither renames a repeated column nor moves columns into an index when every
    row is one field too long, and a row that is too short is seen by its NA.
    """
    _check_encoding(path, encoding)
    try:
        frame = pd.read_csv(
            path,
            sep=delimiter,
            header=None,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig" if encoding.lower() in {"utf-8", "utf8"} else encoding,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise DataError(
            f"{path}: not a table: {reason}; check the quotes and delimiters there"
        ) from error
    header = frame.iloc[0].astype(str).tolist()
    frame = frame.iloc[1:].reset_index(drop=True)
    frame.columns = pd.Index(header)
    short = frame.index[frame.iloc[:, -1].isna()]
    if len(short):
        raise DataError(
            [
                f"{path}: row {row + 1} has fewer fields than the header; complete it, or check "
                "the quotes before it"
                for row in short[:10]
            ]
        )
    return frame


def _check_encoding(path: Path, encoding: str) -> None:
    """Raise a DataError with the byte offset of the first undecodable byte."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        raise DataError(f"{path}: there is no encoding called {encoding!r}") from error
    offset = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                at = offset - pending + error.start
                raise DataError(_encoding_message(path, encoding, at)) from error
            offset += len(chunk)
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise DataError(_encoding_message(path, encoding, offset)) from error


def _encoding_message(path: Path, encoding: str, at: int) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    likely = "utf-16" if utf16 else "cp1252"
    return (
        f"{path}: byte {at} is not {encoding}; say what it is, "
        f"for example --encoding {likely}, or save the file as UTF-8"
    )


def _read_parquet(path: Path, encoding: str) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {_first_line(error)}") from error
    # Not through a dict: a Parquet file may repeat a column name, and that must be seen.
    columns = [_as_text(table.column(i).to_pandas()) for i in range(table.num_columns)]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame()
    frame.columns = pd.Index(table.column_names)
    return frame


def _as_text(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Write a typed column as text: True -> 'True', 1 -> '1', null -> NA."""
    missing = column.isna()
    return column.astype(str).mask(missing, None).astype("str")


def _read_json_lines(path: Path, encoding: str) -> pd.DataFrame:
    _check_encoding(path, encoding)
    name = "utf-8-sig" if encoding.lower() in {"utf-8", "utf8"} else encoding
    frames: list[pd.DataFrame] = []
    rows: list[Mapping[str, str | None]] = []
    with path.open(encoding=name, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_json_row(path, number, line))
            if len(rows) == _JSON_ROWS_AT_ONCE:
                frames.append(pd.DataFrame(rows, dtype="str"))
                rows = []
    if rows:
        frames.append(pd.DataFrame(rows, dtype="str"))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _json_row(path: Path, number: int, line: str) -> dict[str, str | None]:
    where = f"{path}: line {number}"
    try:
        row = json.loads(line, object_pairs_hook=_no_repeats)
        if not isinstance(row, dict):
            raise DataError(f"{where}: not a JSON object; write one object a line")
        "".join(map(str, row.values())).encode("utf-8")
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


_READERS: Mapping[str, Callable[[Path, str], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}
