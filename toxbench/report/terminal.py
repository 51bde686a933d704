"""Tables as lines of a terminal: wrapped at words, and cut between columns, to its width."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len, chop_cells

from toxbench.plugin.contracts import Table

_GAP = "  "
_NARROW = 16  # what a column of words is given at least, where it can be
_Cell = list[str]  # lines


@dataclass(frozen=True)
class Line:
    """One line, and whether it stands out."""

    text: str
    strong: bool = False


def lines(table: Table, width: int) -> Iterator[Line]:
    """Yield a table's lines, none wider than ``width`` columns.

    Words are wrapped. Where columns still do not fit side by side, those that say which row it is
    (`Table.keys`) are written again with the others below. Numbers are never broken, unless one
    alone is wider.
    """
    if table.title:
        yield from (Line(text, strong=True) for text in wrapped(table.title, width))
    for number, part in enumerate(_parts(table, width)):
        if table.title or number:
            yield Line("")
        yield from part
    if table.notes:
        yield Line("")
    for note in table.notes:
        yield from map(Line, wrapped(note, width))


def wrapped(text: str, width: int) -> list[str]:
    """Break lines between words; a word that is wider than a whole line is cut."""
    found: list[str] = []
    for line in text.split("\n"):
        current = ""
        for word in line.split():
            joined = f"{current} {word}" if current else word
            if cell_len(joined) <= width:
                current = joined
                continue
            found += [current] if current else []
            *full, current = chop_cells(word, width) if cell_len(word) > width else [word]
            found += full
        found.append(current)
    return found


def _parts(table: Table, width: int) -> Iterator[list[Line]]:
    """Yield blocks of lines, one below the other."""
    columns = [
        [header, *(row[at] for row in table.rows)] for at, header in enumerate(table.headers)
    ]
    if sum(map(_natural, columns)) + len(_GAP) * (len(columns) - 1) <= width:
        yield _block([[cell.split("\n") for cell in column] for column in columns], table.best)
        return
    keys = columns[: table.keys]
    # Half of the width is for what tells the rows apart, and half at least for what they say.
    share = width if len(keys) == len(columns) else width // 2
    room = max(1, (share - len(_GAP) * (len(keys) - 1)) // max(1, len(keys)))
    head = [_fitted(column, max(room, _longest_word(column))) for column in keys]
    needed = max(map(_unbroken, columns[table.keys :]), default=0)
    if sum(_width(column) + len(_GAP) for column in head) + needed > width:
        # Only then are names and ids cut: numbers have to be read whole.
        head = [_fitted(column, room) for column in keys]
    rest = max(1, width - sum(_width(column) + len(_GAP) for column in head))
    others = [_fitted(column, rest) for column in columns[table.keys :]]
    for group in _groups(others, rest) if others else [[]]:
        yield _block([*head, *group], table.best)


def _groups(columns: Iterable[list[_Cell]], room: int) -> Iterator[list[list[_Cell]]]:
    """Put columns side by side as long as they fit."""
    group: list[list[_Cell]] = []
    taken = 0
    for column in columns:
        needed = _width(column) + (len(_GAP) if group else 0)
        if group and taken + needed > room:
            yield group
            group, taken, needed = [], 0, _width(column)
        group.append(column)
        taken += needed
    yield group


def _fitted(column: Sequence[str], room: int) -> list[_Cell]:
    """Wrap a column: its header to what is below it, and words to a width that suits them."""
    cells = column[1:]
    below = max((_natural([cell]) for cell in cells), default=0)
    if _is_words(cells):
        below = min(below, max(_longest_word(cells), _NARROW, room // 2))
    header = _longest_word(column[:1])
    limit = max(1, min(room, max(below, header)))
    return [wrapped(" ".join(cell.split()), limit) for cell in column]


def _natural(column: Iterable[str]) -> int:
    return max((cell_len(line) for cell in column for line in cell.split("\n")), default=0)


def _is_words(cells: Iterable[str]) -> bool:
    return any(any(c.isalpha() for c in cell) and " " in cell for cell in cells)


def _unbroken(column: Sequence[str]) -> int:
    """Return what a column takes at least: its longest number or word."""
    cells = column[1:]
    return max(_longest_word(column), 0 if _is_words(cells) else _natural(cells))


def _longest_word(column: Iterable[str]) -> int:
    return max((cell_len(word) for cell in column for word in cell.split()), default=0)


def _width(column: Iterable[_Cell]) -> int:
    return max(cell_len(line) for cell in column for line in cell)


def _block(columns: Sequence[Sequence[_Cell]], best: Sequence[int]) -> list[Line]:
    """Write columns side by side, as tabulate's "simple" does."""
    widths = [_width(column) for column in columns]
    rule = _GAP.join("-" * width for width in widths)
    written: list[Line] = []
    for number, row in enumerate(zip(*columns, strict=True), start=-1):
        for cells in zip_longest(*row, fillvalue=""):
            text = _GAP.join(
                cell + " " * (width - cell_len(cell))
                for cell, width in zip(cells, widths, strict=True)
            )
            written.append(Line(text.rstrip(), strong=number in best))
        if number == -1:
            written.append(Line(rule))
    return written
