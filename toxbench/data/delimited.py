"""Tables with a delimiter, read by Python's csv module alone.

pandas would rename a repeated column, fill up a short row, and shift a long one into an index.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from toxbench.data.messages import MAX_PROBLEMS, columns_found
from toxbench.errors import DataError

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
        f"{columns_found(found[best])}; {mend}"
    )
    if columns == 1:
        raise DataError(said)
    return [said]
