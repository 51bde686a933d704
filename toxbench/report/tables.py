"""Tables of values that are all formatted in the same way."""

from collections.abc import Callable, Sequence

from toxbench.plugin.contracts import Table
from toxbench.util.many_labels import ShownLabels
from toxbench.util.text import escape_line, format_value

Value = str | int | float | bool | None
Record = dict[str, Value]


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
