"""Reading of table files as strings.

Nothing is inferred: no missing values, numbers or booleans. A null becomes NA; every other cell
keeps the text in the file.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxbench.data.readers.delimited import read_delimited
from toxbench.data.readers.input_file import InputFile, find_input
from toxbench.data.readers.json_rows import read_json
from toxbench.data.readers.quoting import first_line
from toxbench.data.readers.typed import read_arrow, read_excel, read_parquet
from toxbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_ROWS_PER_BLOCK = 50_000
_MAX_CATEGORIES = 127  # so that a code fits into a byte


def read_strings(path: Path, encoding: str = "utf-8") -> "pd.DataFrame":
    """Read a table as text, with one string column for each column of the file.

    In a table of several blocks, columns with few distinct values, such as labels, are
    categories, which take one byte per row. ``attrs`` holds facts about the file: `NOTES` on how
    it was read, and `CLASS_NAMES`.

    Args:
        path: of one of the kinds in ``READERS``, also compressed (``.gz``, ``.zip``, ``.zst``).
        encoding: of text files; a byte order mark is skipped.

    Raises:
        DataError: the file is missing, empty, of an unknown kind, not in that encoding or not
            rectangular.
        SettingsError: a package for this kind of file is not installed.
    """
    import pandas as pd

    blocks = read_blocks(path, encoding)
    first, second = next(blocks, pd.DataFrame()), next(blocks, None)
    frame = first if second is None else concatenate(chain([first, second], blocks))
    if frame.empty:
        raise DataError(f"{path}: there are no rows below the header")
    return frame


def read_blocks(
    path: Path, encoding: str = "utf-8", rows_per_block: int = _ROWS_PER_BLOCK
) -> Iterator["pd.DataFrame"]:
    """Yield a table block by block, in constant memory; otherwise as `read_strings`.

    Blocks of a JSON lines file may differ in columns, because an object need not have every key.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        file = find_input(path)
        reader = READERS.get(file.kind)
        if reader is None:
            kinds = ", ".join(READERS)
            raise DataError(f"{path}: unknown kind of file {file.kind!a}; use one of {kinds}")
        yield from reader(file, encoding, rows_per_block)
    except UnicodeError as error:
        raise DataError(
            f"{path}: read as {encoding}, it contains invalid text ({first_line(error)}); name "
            "its encoding with --encoding, or save it as UTF-8"
        ) from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{path}: cannot be read: {reason}") from error


def concatenate(blocks: Iterable["pd.DataFrame"]) -> "pd.DataFrame":
    """Concatenate blocks; cells of a column that a block lacks are missing."""
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    block_sizes: list[int] = []
    attrs: dict[Any, Any] = {}
    for block in blocks:
        attrs = attrs or block.attrs
        for name in block.columns:
            if name not in columns:
                columns[name] = [_to_arrow([None] * size) for size in block_sizes]
            columns[name].append(_to_arrow(block[name]))
        block_sizes.append(len(block))
        missing = _to_arrow([None] * len(block))
        for chunks in columns.values():
            if len(chunks) < len(block_sizes):
                chunks.append(missing)
    pa.default_memory_pool().release_unused()  # reading takes several times the table's memory
    frame = pd.DataFrame({name: _to_series(columns.pop(name)) for name in list(columns)})
    frame.attrs = attrs
    return frame


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


READERS: Mapping[str, Callable[[InputFile, str, int], Iterator["pd.DataFrame"]]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".txt": read_delimited,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".xlsx": read_excel,
}
