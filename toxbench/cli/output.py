"""The one door to the terminal: whatever is printed holds nothing that a terminal would obey.

But for colour, which is added behind it: on a terminal, unless ``NO_COLOR`` is set; elsewhere with
``FORCE_COLOR``.
"""

import os
import shutil
import sys
from typing import Literal

import click

from toxbench.report.words import inert

Style = Literal["", "error", "warning", "strong"]
_LOOKS: dict[Style, dict[str, str | bool]] = {
    "error": {"fg": "red"},
    "warning": {"fg": "yellow"},
    "strong": {"bold": True},
}


def say(text: str, err: bool = False, style: Style = "") -> None:
    """Print lines, on stderr if asked, with every control character as its escape."""
    safe = inert(text)
    if style and has_colour(err):
        click.echo(click.style(safe, **_LOOKS[style]), err=err, color=True)  # type: ignore[arg-type]
    else:
        click.echo(safe, err=err)


def has_colour(err: bool = False) -> bool:
    """Whether stdout, or stderr, gets colour. An empty variable is none (no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return (sys.stderr if err else sys.stdout).isatty() and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
