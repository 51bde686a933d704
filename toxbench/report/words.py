"""Numbers in words, for tables and messages."""


def millions(count: int | None) -> str:
    """Write a number of parameters: ``22.7 M``; ``-`` where it is unknown."""
    return "-" if count is None else f"{count / 1e6:.1f} M"


def printable(text: str) -> str:
    """Replace what a terminal would obey by its escape; line breaks become spaces."""
    one_line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in one_line)
