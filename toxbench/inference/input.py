"""Comments to predict, read in blocks of rows from a table or from lines of standard input."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from toxbench.data.columns import find_columns
from toxbench.data.readers.input_file import MAX_PROBLEMS
from toxbench.data.sources import read_blocks
from toxbench.data.table import empty_text_problems, is_blank
from toxbench.errors import DataError
from toxbench.settings import ColumnSettings

if TYPE_CHECKING:
    import pandas as pd

_BLOCK_ROWS = 2048  # large enough for batches of comments of similar length


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
