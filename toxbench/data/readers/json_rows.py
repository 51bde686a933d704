"""Tables of JSON objects: one in each line, or an array of them."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from toxbench.data.readers.input_file import InputFile, check_encoding
from toxbench.data.readers.quoting import check_width, first_line
from toxbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_MAX_CELLS = 5_000_000  # of a block: rows may have different keys, and a frame has all of them

Row = dict[str, str | None]


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


def _frames(file: InputFile, rows: Iterable[Row], rows_per_block: int) -> Iterator["pd.DataFrame"]:
    """Yield rows as frames, so that few rows are Python objects at a time."""
    import pandas as pd

    names: set[str] = set()
    block: list[Row] = []
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


def _to_row(location: str, value: Any) -> Row:
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
