"""Formatting of numbers and escaping of text, for tables and messages."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

_MAX_ITEMS = 10  # of one list in a message


def format_millions(count: int | None) -> str:
    """Format a number of parameters: ``22.7 M``; ``-`` if it is None."""
    return "-" if count is None else f"{count / 1e6:.1f} M"


def format_duration(seconds: float) -> str:
    """Format a time in a suitable unit: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count_of(count: int, noun: str) -> str:
    """Return ``1 cell`` or ``2 cells``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_items(items: Iterable[str], count: int) -> Iterator[str]:
    """Yield at most ten of ``count`` items, then the number of omitted ones."""
    yield from islice(items, _MAX_ITEMS)
    if count > _MAX_ITEMS:
        yield f"and {count - _MAX_ITEMS} more"


def list_items(items: Sequence[str]) -> str:
    """Join at most ten items by commas, followed by the number of omitted ones."""
    return ", ".join(first_items(items, len(items)))


def format_value(value: object) -> str:
    """Format a value of a table on one line: None as ``-``, a float with three decimals."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else escape_line(str(value))


def format_setting(value: object) -> str:
    """Format the value of a setting; a float has three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def escape_line(text: str) -> str:
    """Escape characters that control a terminal; line breaks become spaces."""
    one_line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in one_line)


def escape_text(text: str) -> str:
    """Escape characters that control a terminal, except line breaks and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
