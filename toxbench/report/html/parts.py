"""What a page is made of: sections of sentences, pictures and tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from toxbench.plugin.contracts import Table
from toxbench.report.words import printable


@dataclass(frozen=True)
class Picture:
    """A drawing, and below it the numbers that it was drawn from.

    Attributes:
        name: different for every picture of a page.
        svg: an element, safe to put into a page.
        note: how to read it, "" where that is plain.
    """

    name: str
    svg: str
    numbers: Table
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One heading of a page and what is below it.

    Attributes:
        name: for links to it.
        text: paragraphs; nothing is escaped yet.
        warnings: paragraphs that stand out.
        points: a headline each, then what it means and what to do, if there is anything.
        code: what to type, line by line.
        tables: shown open, above the pictures.
        folded: shown behind their titles, below the pictures.
    """

    name: str
    title: str
    text: Sequence[str] = ()
    warnings: Sequence[str] = ()
    points: Sequence[Sequence[str]] = ()
    code: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    folded: Sequence[Table] = ()


def plain_table(
    title: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str | int | float | None]],
    notes: Sequence[str] = (),
) -> Table:
    """Return a table of values; floats are rounded to three digits, None is a dash."""
    return Table(
        title=printable(title),
        headers=tuple(map(printable, headers)),
        rows=tuple(tuple(_cell(value) for value in row) for row in rows),
        notes=tuple(map(printable, notes)),
        records=(),
    )


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else printable(str(value))
