"""Reading of a table from files, from the Hub, or from an object in memory.

Nothing is inferred in files: no missing values, numbers or booleans. A null becomes NA; every other
cell keeps the text in the file.
"""

import glob
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxbench.data.readers.formats import (
    read_arrow,
    read_delimited,
    read_excel,
    read_json,
    read_parquet,
    text_frames,
)
from toxbench.data.readers.input_file import InputFile, find_input, first_line
from toxbench.errors import DataError, SettingsError, TryAgainError
from toxbench.settings import normalize_word
from toxbench.util.table_source import HUB_PREFIX, TableSource, source_name, source_paths

if TYPE_CHECKING:
    import pandas as pd

_MAX_CATEGORIES = 127  # so that a code fits into a byte
PART_NAMES = {
    "train": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
_PART_COLUMN = "official part"
_ROWS_PER_BLOCK = 50_000


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


@dataclass(frozen=True, eq=False)
class SourceTable:
    """A table as strings, before its columns are known.

    Attributes:
        name: for display and for the folder of results.
        location: path or type, for messages.
        frame: as `read_strings` returns it.
        part_column: column with the official part of each row; None if there are no parts.
    """

    name: str
    location: str
    frame: "pd.DataFrame"
    part_column: str | None = None


def read_source(source: TableSource, encoding: str = "utf-8") -> SourceTable:
    """Read a table.

    Several files, or the files that match a pattern such as ``part-*.csv``, are one table; its
    rows are counted through all of them.

    Raises:
        DataError: as `read_strings`; or a pattern matches no file, or a table in memory cannot be
            read.
        SettingsError: a package that the source needs is not installed.
        TryAgainError: the Hub cannot be reached.
    """
    name, paths = source_name(source), source_paths(source)
    if name.startswith(HUB_PREFIX):
        return _read_object(_load_from_hub(name), name.removeprefix(HUB_PREFIX))
    if not paths:
        return _read_object(source, name)
    files = [file for path in paths for file in _matches(path)]
    if len(files) == 1:
        return SourceTable(name, str(files[0]), read_strings(files[0], encoding))
    frame = concatenate(read_strings(file, encoding) for file in files)
    return SourceTable(name, f"{files[0]} and {len(files) - 1} more", frame)


def _matches(path: Path) -> list[Path]:
    """Return the files that match a pattern, or the path itself."""
    if not glob.has_magic(str(path)) or path.exists():
        return [path]
    files = sorted(map(Path, glob.glob(str(path), recursive=True)))
    if not files:
        raise DataError(f"{path}: no file matches this pattern")
    return files


def _read_object(value: Any, name: str) -> SourceTable:
    """Read a table in memory; tables of several parts become one with a column of parts."""
    if not isinstance(value, Mapping):
        return SourceTable(name, name, _read_table(value, name))
    parts = {part: table for part, table in value.items() if normalize_word(part) in PART_NAMES}
    if len(value) == 1:
        return SourceTable(name, name, _read_table(next(iter(value.values())), name))
    if not parts:
        raise DataError(f"{name}: no part is called train, validation or test")
    frames = {part: _read_table(table, f"{name} {part}") for part, table in parts.items()}
    frame = concatenate(frames.values())
    frame[_PART_COLUMN] = [part for part, rows in frames.items() for _ in range(len(rows))]
    return SourceTable(name, name, frame, _PART_COLUMN)


def _read_table(value: Any, location: str) -> "pd.DataFrame":
    """Read a table of any library that offers Arrow's interface."""
    import pyarrow as pa

    try:
        table = _to_arrow_table(value)
        frames = list(text_frames(location, table.schema, table.to_batches(_ROWS_PER_BLOCK)))
    except (pa.ArrowException, TypeError) as error:
        # Without the cause, whose message can hold a comment.
        raise DataError(f"{location}: cannot be read as a table ({type(error).__name__})") from None
    if not frames:
        raise DataError(f"{location}: there are no rows")
    return frames[0] if len(frames) == 1 else concatenate(frames)


def _to_arrow_table(value: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    if isinstance(value, pd.DataFrame):
        names = list(map(str, value.columns))
        return pa.table([_to_array(value.iloc[:, i]) for i in range(len(names))], names=names)
    if hasattr(value, "with_format"):  # a Dataset of the library datasets
        return value.with_format("arrow")[:]
    return pa.table(value)


def _to_array(column: "pd.Series[Any]") -> Any:
    """Convert a pandas column; values of several types become text."""
    import pyarrow as pa

    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError):
        texts = column.astype("object").map(str, na_action="ignore")
        return pa.array(texts, pa.string(), from_pandas=True)


def _load_from_hub(name: str) -> Any:
    """Load ``hf:NAME`` or ``hf:NAME/CONFIG``, where NAME may have an owner, by datasets."""
    try:
        import datasets
    except ImportError as error:
        raise SettingsError(
            f"{name} needs the package datasets, which is not installed; "
            'first: pip install "toxbench[datasets]"'
        ) from error
    path = name.removeprefix(HUB_PREFIX)
    parent, _, last = path.rpartition("/")
    candidates = [(path,), (parent, last)] if parent else [(path,)]
    errors: list[Exception] = []
    for arguments in candidates if path.count("/") < 2 else candidates[1:]:
        try:
            return datasets.load_dataset(*arguments)
        except (OSError, ValueError) as error:
            errors.append(error)
    reason = first_line(errors[-1])[:200]
    if any(isinstance(error, ConnectionError) for error in errors):
        raise TryAgainError(f"{name}: the Hub cannot be reached: {reason}; try again")
    raise DataError(f"{name}: not a data set of the Hub, or its configuration is missing: {reason}")
