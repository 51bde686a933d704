"""Formats of tables: delimited fields, JSON objects, and typed columns."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from toxbench.data.readers.input_file import (
    MAX_PROBLEMS,
    InputFile,
    check_encoding,
    check_header,
    check_width,
    first_line,
)
from toxbench.errors import DataError, SettingsError

if TYPE_CHECKING:
    import pandas as pd

_Fields = list[str]
_JsonRow = dict[str, str | None]

NOTES = "notes"  # key of `DataFrame.attrs`: how the file was read, one line each
CLASS_NAMES = "class_names"  # another one: column -> names of its integers
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_USUAL_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SAMPLE_CHARACTERS = 1 << 16
_SAMPLE_ROWS = 20
_MAX_FIELD_BYTES = 1 << 30
_MAX_CELLS = 5_000_000  # of a block: rows may have different keys, and a frame has all of them


def read_delimited(file: InputFile, encoding: str, rows_per_block: int) -> Iterator["pd.DataFrame"]:
    """Yield frames of a table whose first line is the header.

    Raises:
        DataError: the header is missing or unsuitable, a quote is not closed, or up to ten rows
            have more or fewer fields than the header.
    """
    import pandas as pd

    limit = csv.field_size_limit(_MAX_FIELD_BYTES)
    try:
        with file.open_text(check_encoding(file, encoding)) as stream:
            delimiter = _find_delimiter(stream.read(_SAMPLE_CHARACTERS), file)
            stream.seek(0)
            is_usual = _USUAL_DELIMITERS.get(file.kind) == delimiter
            notes = [] if is_usual else [f"fields are separated by {_DELIMITERS[delimiter]}"]
            records = _records(stream, file, delimiter)
            _, header = next(records, (0, []))
            if not header:
                raise DataError(f"{file.path}: not a table: every line is blank")
            check_header(file.path, header)
            rows = _rectangular_rows(records, len(header), file)
            for block in iter(lambda: list(islice(rows, rows_per_block)), []):
                frame = pd.DataFrame(block, columns=header, dtype="str")
                frame.attrs[NOTES] = notes
                yield frame
    finally:
        csv.field_size_limit(limit)


def _find_delimiter(sample: str, file: InputFile) -> str:
    """Return the delimiter of the file's name, unless only another one gives a table.

    A delimiter gives a table if the first rows have equally many fields, and more than one.
    """
    widths = {mark: _widths(sample, mark) for mark in _DELIMITERS}
    headers: dict[str, int] = {m: widths[m][0] if widths[m] else 0 for m in _DELIMITERS}
    regular = [m for m in _DELIMITERS if headers[m] > 1 and len(set(widths[m])) == 1]
    usual = _USUAL_DELIMITERS.get(file.kind, ",")
    if usual in regular or (not regular and headers[usual] > 1):
        return usual
    candidates = [usual, *(regular or list(_DELIMITERS))]
    return max(candidates, key=lambda mark: headers[mark])


def _widths(sample: str, delimiter: str) -> list[int]:
    """Return the number of fields of the first rows, without the last row of the sample."""
    text = sample[: sample.rstrip("\n").rfind("\n") + 1] or sample
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return [len(row) for row in islice(filter(None, reader), _SAMPLE_ROWS)]


def _records(stream: TextIO, file: InputFile, delimiter: str) -> Iterator[tuple[int, _Fields]]:
    """Yield each row with the line on which it starts; skip blank lines."""
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    start_line = 1
    try:
        for row in reader:
            if row:
                yield start_line, row
            start_line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{file.path}: line {start_line}: the row that starts there has a quote that is not "
            f"closed, or is closed within a field ({error}); check the quotes there and before, "
            "and double quotes that are part of a text"
        ) from error


def _rectangular_rows(
    records: Iterator[tuple[int, _Fields]], width: int, file: InputFile
) -> Iterator[_Fields]:
    """Yield rows of the right width; report all other rows at the end."""
    problems: list[str] = []
    for number, (line, row) in enumerate(records, start=1):
        if len(row) == width:
            yield row
        elif len(problems) < MAX_PROBLEMS:
            problems.append(
                f"{file.path}: row {number} (line {line}) has {len(row)} fields, the header has "
                f"{width}; correct the row, or check the quotes before it"
            )
    if problems:
        raise DataError(problems)


def read_json(file: InputFile, encoding: str, rows_per_block: int) -> Iterator["pd.DataFrame"]:
    """Yield frames of an array of objects, or of one object in each line."""
    encoding = check_encoding(file, encoding)
    with file.open_text(encoding, newline="\n") as stream:
        first = next((line for line in stream if line.strip()), "")
        stream.seek(0)
        if file.kind == ".json" and first.lstrip().startswith("["):
            array = _parse(str(file.path), stream.read())
            values = ((f"{file.path}: object {n}", value) for n, value in enumerate(array, 1))
        else:
            lines = ((f"{file.path}: line {n}", line) for n, line in enumerate(stream, 1))
            values = ((place, _parse(place, line)) for place, line in lines if line.strip())
        rows = (_to_row(place, value) for place, value in values)
        yield from _frames(file, rows, rows_per_block)


def to_text(value: Any) -> str | None:
    """Convert a value to text: null to None, a list or an object to JSON, other values by `str`."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return None if value is None else str(value)


def _frames(
    file: InputFile, rows: Iterable[_JsonRow], rows_per_block: int
) -> Iterator["pd.DataFrame"]:
    """Yield rows as frames, so that few rows are Python objects at a time."""
    import pandas as pd

    names: set[str] = set()
    block: list[_JsonRow] = []
    for row in rows:
        block.append(row)
        names.update(row)
        check_width(file.path, len(names))
        if len(block) >= min(rows_per_block, _MAX_CELLS // max(len(names), 1)):
            yield pd.DataFrame(block, dtype="str")
            block = []
    if block:
        yield pd.DataFrame(block, dtype="str")


def _parse(location: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{location}: not valid JSON: {first_line(error)}") from error


def _to_row(location: str, value: Any) -> _JsonRow:
    if not isinstance(value, dict):
        raise DataError(f"{location}: not a JSON object; each row is one object")
    row = {key: to_text(cell) for key, cell in value.items()}
    try:
        "".join((*row, *(cell or "" for cell in row.values()))).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{location}: half of a surrogate pair stands alone; correct the text"
        ) from error
    return row


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key appears twice in one object")
    return row


def read_parquet(file: InputFile, encoding: str, rows_per_block: int) -> Iterator["pd.DataFrame"]:
    """Yield frames of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as stream, pq.ParquetFile(stream) as parquet:
            batches = parquet.iter_batches(rows_per_block)
            yield from text_frames(file.path, parquet.schema_arrow, batches)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{file.path}: not a readable Parquet file: {first_line(error)}") from error


def read_arrow(file: InputFile, encoding: str, rows_per_block: int) -> Iterator["pd.DataFrame"]:
    """Yield frames of an Arrow (Feather) file, in the file format or the stream format."""
    import pyarrow as pa

    try:
        with file.open() as stream:
            is_file = stream.read(6) == b"ARROW1"
            stream.seek(0)
            with pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream) as reader:
                table = reader.read_all()
            yield from text_frames(file.path, table.schema, table.to_batches(rows_per_block))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file.path}: not a readable Arrow file: {first_line(error)}") from error


def read_excel(file: InputFile, encoding: str, rows_per_block: int) -> Iterator["pd.DataFrame"]:
    """Yield one frame of the first sheet; empty rows and columns are left out."""
    import pandas as pd

    if find_spec("openpyxl") is None:
        raise SettingsError(
            f"{file.path} is an Excel file, which needs the package openpyxl, which is not "
            'installed; first: pip install "toxbench[xlsx]"'
        )
    text: dict[str, Any] = {"dtype": "str", "keep_default_na": False, "na_values": [""]}
    try:
        with file.open() as stream:
            cells = pd.read_excel(stream, header=None, engine="openpyxl", **text)
    except (ValueError, LookupError, TypeError, SyntaxError) as error:
        raise DataError(f"{file.path}: not a readable Excel file: {first_line(error)}") from error
    cells = cells.dropna(axis="index", how="all").dropna(axis="columns", how="all")
    if cells.empty:
        raise DataError(f"{file.path}: the first sheet is empty")
    names = cells.iloc[0].fillna("").tolist()
    check_header(file.path, names)
    yield cells.iloc[1:].set_axis(names, axis="columns").reset_index(drop=True).astype("str")


def text_frames(source: object, schema: Any, batches: Iterable[Any]) -> Iterator["pd.DataFrame"]:
    """Yield batches of typed columns as frames of text, with the class names of the schema.

    Raises:
        DataError: two columns have the same name, or there are too many.
        pyarrow.ArrowException: a text is not valid UTF-8.
    """
    import pandas as pd

    check_header(source, schema.names)
    class_names = _class_names(schema.metadata or {})
    for batch in batches:
        frame = pd.DataFrame({name: _to_text(batch.column(name)) for name in schema.names})
        frame.attrs[CLASS_NAMES] = class_names
        yield frame


def _to_text(column: Any) -> Any:
    """Convert a typed column to text: true -> 'true', 1 -> '1', null -> NA, a list -> JSON."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        text = column.dictionary.cast(pa.string()).take(column.indices)
    elif pa.types.is_nested(column.type):
        text = pa.array(map(to_text, column.to_pylist()), pa.string())
    else:
        text = column.cast(pa.string())
    text.validate(full=True)  # a damaged file may contain invalid UTF-8
    return text.to_pandas().astype("str")


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the names of classes that the library datasets stores, alone or for lists."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        items = {name: f[0] if isinstance(f, list) else f for name, f in features.items()}
        items = {name: item.get("feature", item) for name, item in items.items()}
        return {name: tuple(map(str, item.get("names") or ())) for name, item in items.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}  # of another program, or of another version of that library
