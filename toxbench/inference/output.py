"""Predictions as a table: CSV, TSV, JSON lines or Parquet, written block by block."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from toxbench.errors import SettingsError
from toxbench.evaluation.thresholds import predict
from toxbench.inference.input import Block
from toxbench.plugin.contracts import spreadsheet_safe
from toxbench.util.atomic import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa

    from toxbench.training.predictor import Probabilities

Columns = Mapping[str, Sequence[str | int | float]]
Write = Callable[[Columns], None]


def columns_of(
    block: Block,
    probabilities: "Probabilities",
    labels: Sequence[str],
    thresholds: Sequence[float],
    with_text: bool,
) -> dict[str, Sequence[str | int | float]]:
    """Return id, yes (1) or no (0) of each label, its probability, and the text if asked for.

    Probabilities are the shortest decimals that are the same in float32.
    """
    decided = predict(probabilities, thresholds)
    # Through text: a float32 as a Python float would show digits that it does not have.
    shown = probabilities.astype(str)
    found: dict[str, Sequence[str | int | float]] = {block.id_name: block.ids}
    for place, label in enumerate(labels):
        found[_free(label, found)] = decided[:, place].tolist()
    for place, label in enumerate(labels):
        found[_free(f"{label}_probability", found)] = list(map(float, shown[:, place]))
    if with_text:
        found[_free(block.text_name, found)] = block.texts
    return found


def _free(name: str, taken: Mapping[str, object]) -> str:
    while name in taken:
        name += "_"
    return name


def check_output(path: Path, source: Path | None) -> None:
    """Refuse what cannot be written to, or must not be.

    Raises:
        SettingsError: the kind is unknown, it is no file, or the one that is read.
    """
    if path.suffix.lower() not in _WRITERS:
        known = ", ".join(_WRITERS)
        raise SettingsError(f"--output {path}: unknown kind of file; use one of {known}")
    if path.exists() and not path.is_file():
        raise SettingsError(f"--output {path}: there is something that is no file; name another")
    if source is not None and path.exists() and path.samefile(source):
        raise SettingsError(f"--output {path} is the file of --input; name another")


@contextmanager
def writing(path: Path) -> Iterator[Write]:
    """Yield a function that appends rows to a file, which is there only when the context ends.

    Raises:
        StorageError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    with atomic_file(path) as file, _WRITERS[path.suffix.lower()](file) as write:
        yield write


def csv_writer(tell: Callable[[str], None], delimiter: str = ",") -> Write:
    """Return a function that writes rows as text, a header first; formulas are made inert."""
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
        tell(buffer.getvalue())

    return write


@contextmanager
def _csv(file: BinaryIO) -> Iterator[Write]:
    yield csv_writer(lambda text: _put(file, text))


@contextmanager
def _tsv(file: BinaryIO) -> Iterator[Write]:
    yield csv_writer(lambda text: _put(file, text), "\t")


@contextmanager
def _json_lines(file: BinaryIO) -> Iterator[Write]:
    def write(columns: Columns) -> None:
        rows = zip(*columns.values(), strict=True)
        objects = (dict(zip(columns, row, strict=True)) for row in rows)
        _put(file, "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in objects))

    yield write


@contextmanager
def _parquet(file: BinaryIO) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        opened: list[pq.ParquetWriter] = []

        def write(columns: Columns) -> None:
            table = pa.table({name: _array(values) for name, values in columns.items()})
            if not opened:
                opened.append(stack.enter_context(pq.ParquetWriter(file, table.schema)))
            opened[0].write_table(table)

        yield write


def _array(values: Sequence[str | int | float]) -> "pa.Array":
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int8(), float: pa.float32()}
    return pa.array(values, kinds[type(values[0])])


def _put(file: BinaryIO, text: str) -> None:
    file.write(text.encode("utf-8"))


_WRITERS = {
    ".csv": _csv, ".tsv": _tsv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet,
}  # fmt: skip
