"""Comments to predict: from a table or lines of any size, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from toxbench.data.readers import MAX_PROBLEMS, read_blocks
from toxbench.data.table import empty_text_problems, find_columns, is_blank
from toxbench.errors import DataError
from toxbench.settings import ColumnSettings

if TYPE_CHECKING:
    import pandas as pd

_ROWS_AT_ONCE = 2048  # enough of them for batches of like lengths


@dataclass(frozen=True)
class Block:
    """Some comments, in order.

    Attributes:
        id_name: of the column of ids; ``row`` where there is none and rows are counted from 1.
        text_name: of the column of comments.
    """

    id_name: str
    text_name: str
    ids: list[str]
    texts: list[str]


@dataclass(frozen=True)
class CommentsFile:
    """A table of comments; labels need not be in it.

    Attributes:
        path: CSV, TSV, Parquet or JSON lines.
        columns: which of them hold texts and ids, where they are not found by their names.
    """

    path: Path
    columns: ColumnSettings

    def count(self) -> int:
        """Read the file once; return how many comments it has.

        Raises:
            DataError: as `toxbench.data.table.read_comments`, for texts.
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
            what = "no row has a text" if rows else "there are no rows below the header"
            raise DataError(f"{self.path}: {what}")
        return count

    def blocks(self) -> Iterator[Block]:
        """Yield the comments; raises `DataError` where the file is not as it was counted."""
        for text, row_id, frame in self._frames():
            frame = frame[~is_blank(frame[text])]
            if len(frame):
                ids = frame[row_id].fillna("") if row_id else (frame.index + 1).astype(str)
                yield Block(row_id or "row", text, ids.tolist(), frame[text].tolist())

    def _frames(self) -> Iterator[tuple[str, str | None, "pd.DataFrame"]]:
        """Yield blocks of rows, whose index goes on, with the columns of texts and ids."""
        import pandas as pd

        found: tuple[str, str | None] | None = None
        start = 0
        for frame in read_blocks(self.path, self.columns.encoding, _ROWS_AT_ONCE):
            if found is None:
                found = find_columns(frame, str(self.path), self.columns)[:2]
            text, row_id = found
            frame.index = pd.RangeIndex(start, start + len(frame))
            start += len(frame)
            # A JSON object need not have every key.
            wanted = [text] if row_id is None else [text, row_id]
            yield text, row_id, frame.reindex(columns=list(dict.fromkeys(wanted)))


def lines_of(stream: BinaryIO, columns: ColumnSettings) -> Iterator[Block]:
    """Yield a comment for each line of a stream; blank lines are no comments.

    Raises:
        DataError: a line is not in the encoding of ``columns``.
    """
    group_ids = enumerate(stream, start=1)
    for some in iter(lambda: list(islice(group_ids, _ROWS_AT_ONCE)), []):
        decoded = [(str(number), _decoded(line, number, columns)) for number, line in some]
        kept = [(number, text) for number, text in decoded if text.strip()]
        if kept:
            yield Block("line", "text", [n for n, _ in kept], [text for _, text in kept])


def _decoded(line: bytes, number: int, columns: ColumnSettings) -> str:
    try:
        text = line.decode("utf-8-sig" if columns.encoding == "utf-8" else columns.encoding)
        text.encode("utf-8")
    except (LookupError, ValueError) as error:
        raise DataError(
            f"standard input: line {number} is not {columns.encoding}; say what it is with "
            "--encoding, or put the lines into a file"
        ) from error
    return text.rstrip("\r\n")
