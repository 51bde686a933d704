"""Tables of typed columns: Parquet, Arrow, Excel, and tables in memory."""

import json
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from toxbench.data.readers.input_file import InputFile
from toxbench.data.readers.json_rows import to_text
from toxbench.data.readers.quoting import check_header, first_line
from toxbench.errors import DataError, SettingsError

if TYPE_CHECKING:
    import pandas as pd

CLASS_NAMES = "class_names"  # key of `DataFrame.attrs`: column -> names of its integers


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
