"""The contract of a report format: how a leaderboard is written down."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table that is ready to be written.

    Attributes:
        title: one line.
        headers: column titles.
        rows: cells as text, numbers already rounded; nothing is escaped yet.
        notes: lines below the table.
        records: the same rows as unrounded values, for formats that machines read.
        keys: how many of the first columns say which row it is; they are written again where the
            others do not fit side by side.
        best: numbers of rows that may stand out, from 0.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    records: tuple[dict[str, str | int | float | bool | None], ...]
    keys: int = 1
    best: tuple[int, ...] = ()


def spreadsheet_safe(value: object) -> object:
    """Return a cell of a CSV file; a text that a spreadsheet would run as a formula is quoted."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


@dataclass(frozen=True, kw_only=True)
class ReportFormat:
    """A way to write a table: ``toxbench leaderboard --format NAME``.

    Attributes:
        name: what users write after ``--format``.
        render: the whole text, escaped for where it is going.
    """

    name: str
    render: Callable[[Table], str]
