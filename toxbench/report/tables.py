"""Tables of values that are all formatted in the same way, and their lines on a terminal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len, chop_cells

from toxbench.plugin.contracts import Table
from toxbench.util.many_labels import ShownLabels
from toxbench.util.text import escape_line, format_value

_GAP = "  "
_MIN_WORDS_WIDTH = 16  # smallest width of a column of words, if there is room
_Cell = list[str]  # lines
Value = str | int | float | bool | None
Record = dict[str, Value]


@dataclass(frozen=True)
class Line:
    """One line of a table; ``strong`` lines are printed bold."""

    text: str
    strong: bool = False


def table_lines(table: Table, width: int) -> Iterator[Line]:
    """Yield the lines of a table, none wider than ``width`` character cells.

    Words are wrapped. Columns that do not fit side by side follow below, after a copy of the
    columns that identify a row (`Table.keys`). A number is broken only if it is wider than the
    whole line. A table without rows has no headers either.
    """
    if table.title:
        yield from (Line(text, strong=True) for text in wrap_words(table.title, width))
    for number, block in enumerate(_blocks(table, width) if table.rows else ()):
        if table.title or number:
            yield Line("")
        yield from block
    if table.notes:
        yield Line("")
    for note in table.notes:
        yield from map(Line, wrap_words(note, width))


def wrap_words(text: str, width: int) -> list[str]:
    """Break a text between words; a word wider than ``width`` is cut."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        current = ""
        for word in paragraph.split():
            joined = f"{current} {word}" if current else word
            if cell_len(joined) <= width:
                current = joined
                continue
            lines += [current] if current else []
            *full, current = chop_cells(word, width) if cell_len(word) > width else [word]
            lines += full
        lines.append(current)
    return lines


def _blocks(table: Table, width: int) -> Iterator[list[Line]]:
    """Yield blocks of columns that fit side by side."""
    columns = [
        [header, *(row[number] for row in table.rows)]
        for number, header in enumerate(table.headers)
    ]
    if sum(map(_natural_width, columns)) + len(_GAP) * (len(columns) - 1) <= width:
        yield _block([[cell.split("\n") for cell in column] for column in columns], table.best)
        return
    keys, values = columns[: table.keys], columns[table.keys :]
    # Key columns get at most half of the width; if there are no others, all of it.
    share = width // 2 if values else width
    room = max(1, (share - len(_GAP) * (len(keys) - 1)) // max(1, len(keys)))
    key_cells = [_fit(column, max(room, _longest_word(column))) for column in keys]
    needed = max(map(_smallest_width, values), default=0)
    if sum(_width(column) + len(_GAP) for column in key_cells) + needed > width:
        # Names and ids are cut before numbers are: a number must be complete.
        key_cells = [_fit(column, room) for column in keys]
    rest = max(1, width - sum(_width(column) + len(_GAP) for column in key_cells))
    value_cells = [_fit(column, rest) for column in values]
    for group in _group_columns(value_cells, rest) if value_cells else [[]]:
        yield _block([*key_cells, *group], table.best)


def _group_columns(columns: Iterable[list[_Cell]], room: int) -> Iterator[list[list[_Cell]]]:
    """Yield groups of consecutive columns that fit side by side."""
    group: list[list[_Cell]] = []
    used = 0
    for column in columns:
        needed = _width(column) + (len(_GAP) if group else 0)
        if group and used + needed > room:
            yield group
            group, used, needed = [], 0, _width(column)
        group.append(column)
        used += needed
    yield group


def _fit(column: Sequence[str], room: int) -> list[_Cell]:
    """Wrap the header to the width of the cells below it, and cells of words to a good width."""
    cells = column[1:]
    width = max((_natural_width([cell]) for cell in cells), default=0)
    if _is_words(cells):
        width = min(width, max(_longest_word(cells), _MIN_WORDS_WIDTH, room // 2))
    limit = max(1, min(room, max(width, _longest_word(column[:1]))))
    return [wrap_words(" ".join(cell.split()), limit) for cell in column]


def _natural_width(column: Iterable[str]) -> int:
    return max((cell_len(line) for cell in column for line in cell.split("\n")), default=0)


def _is_words(cells: Iterable[str]) -> bool:
    return any(any(c.isalpha() for c in cell) and " " in cell for cell in cells)


def _smallest_width(column: Sequence[str]) -> int:
    """Return the width of a column's longest word or number."""
    cells = column[1:]
    return max(_longest_word(column), 0 if _is_words(cells) else _natural_width(cells))


def _longest_word(column: Iterable[str]) -> int:
    return max((cell_len(word) for cell in column for word in cell.split()), default=0)


def _width(column: Iterable[_Cell]) -> int:
    return max(cell_len(line) for cell in column for line in cell)


def _block(columns: Sequence[Sequence[_Cell]], best: Sequence[int]) -> list[Line]:
    """Return columns side by side, in the layout of tabulate's "simple" format."""
    widths = [_width(column) for column in columns]
    rule = _GAP.join("-" * width for width in widths)
    lines: list[Line] = []
    for number, row in enumerate(zip(*columns, strict=True), start=-1):  # -1: the headers
        for cells in zip_longest(*row, fillvalue=""):
            text = _GAP.join(
                cell + " " * (width - cell_len(cell))
                for cell, width in zip(cells, widths, strict=True)
            )
            lines.append(Line(text.rstrip(), strong=number in best))
        if number == -1:
            lines.append(Line(rule))
    return lines


def create_table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[Value]], notes: Sequence[str] = ()
) -> Table:
    """Return a table of values without records; all text is escaped."""
    return Table(
        title=escape_line(title),
        headers=tuple(map(escape_line, headers)),
        rows=tuple(tuple(map(format_value, row)) for row in rows),
        notes=tuple(map(escape_line, notes)),
        records=(),
    )


def records_table(
    title: str,
    records: Sequence[Record],
    notes: Sequence[str] = (),
    headers: tuple[str, ...] = (),
    keys: int = 1,
    text: Callable[[Value], str] = format_value,
    shown: ShownLabels | None = None,
) -> Table:
    """Return a table of records; ``headers`` are for a table without any, ``text`` for a cell.

    If there is a record for each label, only those that are ``shown`` have a row to read.
    """
    rows = records if shown is None else [records[i] for i in shown.places]
    return Table(
        title=escape_line(title),
        headers=tuple(records[0]) if records else headers,
        rows=tuple(tuple(map(text, record.values())) for record in rows),
        notes=(*notes, *(shown.notes if shown else ())),
        records=tuple(records),
        keys=keys,
    )
