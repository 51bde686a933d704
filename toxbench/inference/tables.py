"""Tables of comments to predict, and tables of predictions, both read and written in blocks."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from toxbench.data.columns import find_columns
from toxbench.data.readers.input_file import MAX_PROBLEMS
from toxbench.data.sources import read_blocks
from toxbench.data.table import empty_text_problems, is_blank
from toxbench.errors import DataError, SettingsError
from toxbench.evaluation.thresholds import predict
from toxbench.plugin.contracts import spreadsheet_safe
from toxbench.settings import ColumnSettings
from toxbench.util.atomic import ANY_MODE, atomic_file

if TYPE_CHECKING:
    import pandas as pd

    from toxbench.util.arrays import Probabilities

_BLOCK_ROWS = 2048  # large enough for batches of comments of similar length
Columns = Mapping[str, Sequence[str | int | float]]  # name -> one value per comment
WriteColumns = Callable[[Columns], None]


@dataclass(frozen=True, repr=False)
class Block:
    """Consecutive comments with their ids.

    Attributes:
        id_name: name of the id column; ``row`` if the table has none, with row numbers from 1.
        text_name: name of the text column.
        ids: one per comment.
        texts: the comments.
    """

    id_name: str
    text_name: str
    ids: list[str]
    texts: list[str]


@dataclass(frozen=True)
class CommentsFile:
    """A table of comments of any size; it needs no label columns.

    Attributes:
        path: of any kind that `read_blocks` reads.
        columns: names of the text and id columns, if they cannot be detected.
    """

    path: Path
    columns: ColumnSettings

    def count(self) -> int:
        """Read the whole file and return its number of comments.

        Raises:
            DataError: the texts are invalid, as in `toxbench.data.table.read_comments`.
        """
        problems: list[str] = []
        count = rows = 0
        for text, _, frame in self._frames():
            rows += len(frame)
            if self.columns.drop_empty:
                count += int((~is_blank(frame[text])).sum())
            else:
                count += len(frame)
                left = MAX_PROBLEMS - len(problems)
                problems += islice(empty_text_problems(frame[text], str(self.path), text), left)
        if problems:
            raise DataError(problems)
        if not count:
            reason = "no row has a text" if rows else "there are no rows below the header"
            raise DataError(f"{self.path}: {reason}")
        return count

    def blocks(self) -> Iterator[Block]:
        """Yield the comments that are not blank, in blocks.

        Raises:
            DataError: the file has changed since `count` and is now invalid.
        """
        for text, row_id, frame in self._frames():
            frame = frame[~is_blank(frame[text])]
            if len(frame):
                ids = frame[row_id].fillna("") if row_id else (frame.index + 1).astype(str)
                yield Block(row_id or "row", text, ids.tolist(), frame[text].tolist())

    def _frames(self) -> Iterator[tuple[str, str | None, "pd.DataFrame"]]:
        """Yield the names of the text and id columns, and a block indexed by row number from 0."""
        import pandas as pd

        roles: tuple[str, str | None] | None = None
        start = 0
        for frame in read_blocks(self.path, self.columns.encoding, _BLOCK_ROWS):
            if roles is None:
                roles = find_columns(frame, str(self.path), self.columns)[:2]
            text, row_id = roles
            frame.index = pd.RangeIndex(start, start + len(frame))
            start += len(frame)
            # reindex, because a JSON object need not have every key.
            names = [text] if row_id is None else [text, row_id]
            yield text, row_id, frame.reindex(columns=list(dict.fromkeys(names)))


def read_lines(stream: BinaryIO, columns: ColumnSettings) -> Iterator[Block]:
    """Yield one comment per line of a stream, in blocks; blank lines are skipped.

    The ids are line numbers from 1.

    Raises:
        DataError: a line is not in the encoding of ``columns``.
    """
    numbered_lines = enumerate(stream, start=1)
    for lines in iter(lambda: list(islice(numbered_lines, _BLOCK_ROWS)), []):
        decoded = [(str(number), _decode(line, number, columns)) for number, line in lines]
        comments = [(number, text) for number, text in decoded if text.strip()]
        if comments:
            numbers, texts = zip(*comments, strict=True)
            yield Block("line", "text", list(numbers), list(texts))


def _decode(line: bytes, number: int, columns: ColumnSettings) -> str:
    try:
        text = line.decode("utf-8-sig" if columns.encoding == "utf-8" else columns.encoding)
        text.encode("utf-8")
    except (LookupError, ValueError) as error:
        raise DataError(
            f"standard input: line {number} is not {columns.encoding}; set its encoding with "
            "--encoding, or save the lines to a file"
        ) from error
    return text.rstrip("\r\n")


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
