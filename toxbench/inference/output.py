"""Tables of predictions: CSV, TSV, JSON lines or Parquet, written block by block."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from toxbench.errors import SettingsError
from toxbench.evaluation.thresholds import predict
from toxbench.inference.input import Block
from toxbench.plugin.contracts import spreadsheet_safe
from toxbench.util.atomic import ANY_MODE, atomic_file

if TYPE_CHECKING:
    from toxbench.util.arrays import Probabilities

Columns = Mapping[str, Sequence[str | int | float]]  # name -> one value per comment
WriteColumns = Callable[[Columns], None]


def prediction_columns(
    block: Block,
    probabilities: "Probabilities",
    labels: Sequence[str],
    thresholds: Sequence[float],
    with_text: bool,
) -> dict[str, Sequence[str | int | float]]:
    """Return the columns of a table of predictions.

    Args:
        block: the comments.
        probabilities: float32 ``[comment, label]``.
        labels: names of the labels.
        thresholds: one per label.
        with_text: add a column of the comments.

    Returns:
        name -> values, in this order: the ids; 1 (yes) or 0 (no) for each label; the probability
        of each label, as the shortest decimal that has the same float32 value; the comments. A
        name that is already in use gets a trailing underscore.
    """
    decisions = predict(probabilities, thresholds)
    # Converted through text: float(float32) would have digits beyond the precision of float32.
    decimals = probabilities.astype(str)
    columns: dict[str, Sequence[str | int | float]] = {block.id_name: block.ids}
    for index, label in enumerate(labels):
        columns[_unused_name(label, columns)] = decisions[:, index].tolist()
    for index, label in enumerate(labels):
        name = _unused_name(f"{label}_probability", columns)
        columns[name] = list(map(float, decimals[:, index]))
    if with_text:
        columns[_unused_name(block.text_name, columns)] = block.texts
    return columns


def check_output(path: Path, source: Path | None) -> None:
    """Check that an output file can be written; ``source`` is the input file, if there is one.

    Raises:
        SettingsError: the suffix is unknown, or the path is a folder or the input file.
    """
    if path.suffix.lower() not in _WRITERS:
        suffixes = ", ".join(_WRITERS)
        raise SettingsError(f"--output {path}: unknown kind of file; use one of {suffixes}")
    if path.exists() and not path.is_file():
        raise SettingsError(f"--output {path} exists and is not a file; name another")
    if source is not None and path.exists() and path.samefile(source):
        raise SettingsError(f"--output {path} is the file of --input; name another")


@contextmanager
def open_output(path: Path, max_mode: int = ANY_MODE) -> Iterator[WriteColumns]:
    """Yield a function that appends rows to a file; the file appears when the context ends.

    ``max_mode`` limits its permission bits, as in `atomic_file`.

    Raises:
        StorageError: the disk is full or the folder cannot be written; no file is left behind.
    """
    with atomic_file(path, max_mode) as file, _WRITERS[path.suffix.lower()](file) as write:
        yield write


def csv_writer(write_text: Callable[[str], None], delimiter: str = ",") -> WriteColumns:
    """Return a function that writes rows as CSV text, the header first.

    It calls ``write_text`` with the lines of each block. Cells that a spreadsheet would run as
    formulas are escaped.
    """
    is_first = True

    def write(columns: Columns) -> None:
        nonlocal is_first
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
        if is_first:
            writer.writerow(map(spreadsheet_safe, columns))
            is_first = False
        safe = ([spreadsheet_safe(value) for value in column] for column in columns.values())
        writer.writerows(zip(*safe, strict=True))
        write_text(buffer.getvalue())

    return write


@contextmanager
def _csv(file: BinaryIO, delimiter: str = ",") -> Iterator[WriteColumns]:
    yield csv_writer(lambda text: _write_text(file, text), delimiter)


@contextmanager
def _json_lines(file: BinaryIO) -> Iterator[WriteColumns]:
    def write(columns: Columns) -> None:
        rows = zip(*columns.values(), strict=True)
        objects = (dict(zip(columns, row, strict=True)) for row in rows)
        lines = (f"{json.dumps(item, ensure_ascii=False)}\n" for item in objects)
        _write_text(file, "".join(lines))

    yield write


@contextmanager
def _parquet(file: BinaryIO) -> Iterator[WriteColumns]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        types = {str: pa.string(), int: pa.int8(), float: pa.float32()}

        def write(columns: Columns) -> None:
            nonlocal writer
            arrays = [pa.array(values, types[type(values[0])]) for values in columns.values()]
            table = pa.table(arrays, list(columns))
            if writer is None:  # the schema is that of the first block
                writer = stack.enter_context(pq.ParquetWriter(file, table.schema))
            writer.write_table(table)

        yield write


def _write_text(file: BinaryIO, text: str) -> None:
    file.write(text.encode("utf-8"))


def _unused_name(name: str, columns: Mapping[str, object]) -> str:
    while name in columns:
        name += "_"
    return name


_WRITERS: Mapping[str, Callable[[BinaryIO], AbstractContextManager[WriteColumns]]] = {
    ".csv": _csv,
    ".tsv": partial(_csv, delimiter="\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}
