"""Numbers in words, for tables and messages."""


def millions(count: int | None) -> str:
    """Write a number of parameters: ``22.7 M``; ``-`` where it is unknown."""
    return "-" if count is None else f"{count / 1e6:.1f} M"
