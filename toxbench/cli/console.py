"""Print text with control characters escaped.

Colour is added on a terminal, unless ``NO_COLOR`` is set, and elsewhere with ``FORCE_COLOR``.
"""

import os
import shutil
import sys
from typing import Literal

import click

from toxbench.util.text import escape_text

Style = Literal["", "error", "warning", "strong"]
_STYLES: dict[Style, dict[str, str | bool]] = {
    "error": {"fg": "red"},
    "warning": {"fg": "yellow"},
    "strong": {"bold": True},
}


def open_standard_streams() -> None:
    """Connect closed standard streams (``>&-``) to nothing.

    Otherwise the next file that is opened would get their number, and their output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number, which is that of the stream.
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - until the end
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def echo(text: str, err: bool = False, style: Style = "") -> None:
    """Print lines on stdout or stderr, with control characters escaped."""
    safe = escape_text(text)
    if style and has_colour(err):
        click.echo(click.style(safe, **_STYLES[style]), err=err, color=True)  # type: ignore[arg-type]
    else:
        click.echo(safe, err=err)


def has_colour(err: bool = False) -> bool:
    """Whether stdout or stderr gets colour; empty variables do not count (no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return (sys.stderr if err else sys.stdout).isatty() and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Return the columns of the terminal; None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
