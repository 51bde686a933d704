"""Numbers in words, for tables and messages."""


def millions(count: int | None) -> str:
    """Write a number of parameters: ``22.7 M``; ``-`` where it is unknown."""
    return "-" if count is None else f"{count / 1e6:.1f} M"


def escape_line(text: str) -> str:
    """Replace what a terminal would obey by its escape; line breaks become spaces."""
    one_line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in one_line)


def escape_text(text: str) -> str:
    """Replace what a terminal would obey by its escape; line ends and tabs stay as they are."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count_of(count: int, noun: str) -> str:
    """Return ``1 cell`` or ``2 cells``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
