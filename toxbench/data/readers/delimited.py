"""Tables of fields between delimiters, such as CSV."""

import csv
import io
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, TextIO

from toxbench.data.readers.input_file import InputFile, check_encoding
from toxbench.data.readers.quoting import MAX_PROBLEMS, check_header
from toxbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Row = list[str]

NOTES = "notes"  # key of `DataFrame.attrs`: how the file was read, one line each
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_USUAL_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SAMPLE_CHARACTERS = 1 << 16
_SAMPLE_ROWS = 20
_MAX_FIELD_BYTES = 1 << 30


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


def _records(stream: TextIO, file: InputFile, delimiter: str) -> Iterator[tuple[int, Row]]:
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
    records: Iterator[tuple[int, Row]], width: int, file: InputFile
) -> Iterator[Row]:
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
