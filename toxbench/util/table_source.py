"""What a user gives as a table: a path, several paths, a data set of the Hub, or an object."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TableSource = Any  # `Path`, tuple of paths, a table in memory, or a mapping of parts to tables
HUB_PREFIX = "hf:"


def to_source(value: Any) -> TableSource:
    """Convert texts to paths.

    Raises:
        ValueError: it is not a path, paths or a table.
    """
    if value is None or isinstance(value, str | Path):
        return value if value is None else Path(value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], str | Path):
        return tuple(map(Path, value)) if len(value) > 1 else Path(value[0])
    tables = list(value.values()) if isinstance(value, Mapping) else [value]
    if not tables or not all(map(_is_table, tables)):
        raise ValueError(
            "a table is a path, several paths, a pandas or polars DataFrame, a pyarrow Table, or a "
            "Dataset or DatasetDict of the library datasets"
        )
    return value


def source_paths(source: TableSource) -> tuple[Path, ...]:
    """Return the paths of a source; none for a table in memory."""
    if isinstance(source, Path):
        return (source,)
    return source if isinstance(source, tuple) else ()


def source_name(source: TableSource) -> str:
    """Return a short name without folders; for a table in memory, that of its type."""
    paths = source_paths(source)
    if not paths:
        return type(source).__name__
    if paths[0].as_posix().startswith(HUB_PREFIX):
        return paths[0].as_posix()
    return f"{paths[0].name} and {len(paths) - 1} more" if len(paths) > 1 else paths[0].name


def _is_table(value: object) -> bool:
    is_dataset = hasattr(value, "with_format") and hasattr(value, "__len__")  # not a stream
    return is_dataset or hasattr(value, "__arrow_c_stream__")
