"""The one door to the terminal: whatever is printed holds nothing that a terminal would obey.

But for colour, which is added behind it: on a terminal, unless ``NO_COLOR`` is set; elsewhere with
``FORCE_COLOR``.
"""

import os
import shutil
import sys
from typing import Literal

import click

from toxbench.plugin.contracts import Table
from toxbench.plugin.registry import Registry
from toxbench.ranking.rows import Leaderboard
from toxbench.report.labels import label_table, label_tables
from toxbench.report.leaderboard import leaderboard_table, terminal_tables
from toxbench.report.terminal import table_lines
from toxbench.util.text import escape_text

Style = Literal["", "error", "warning", "strong"]
_STYLES: dict[Style, dict[str, str | bool]] = {
    "error": {"fg": "red"},
    "warning": {"fg": "yellow"},
    "strong": {"bold": True},
}


def echo(text: str, err: bool = False, style: Style = "") -> None:
    """Print lines, on stderr if asked, with every control character as its escape."""
    safe = escape_text(text)
    if style and has_colour(err):
        click.echo(click.style(safe, **_STYLES[style]), err=err, color=True)  # type: ignore[arg-type]
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


def print_labels(leaderboard: Leaderboard, registry: Registry, name: str | None) -> None:
    """Print the scores of each label and candidate; raises as `print_leaderboard`."""
    tables = [label_table(leaderboard)] if name else label_tables(leaderboard)
    print_tables(tables, registry, name)


def print_leaderboard(leaderboard: Leaderboard, registry: Registry, name: str | None) -> None:
    """Print a leaderboard for people, or in the format of that name.

    Raises:
        SettingsError: there is no such format.
    """
    tables = [leaderboard_table(leaderboard)] if name else terminal_tables(leaderboard)
    print_tables(tables, registry, name)


def print_tables(tables: list[Table], registry: Registry, name: str | None) -> None:
    """Print tables in the format of that name.

    None is the format for people: fitted to a terminal, as wide as they are everywhere else.

    Raises:
        SettingsError: there is no such format.
    """
    width = terminal_width()
    if name is None and width is not None:
        _print_fitted(tables, width)
        return
    render = registry.report_format(name or "plain").item.render
    echo("\n\n".join(render(table).strip() for table in tables))


def _print_fitted(tables: list[Table], width: int) -> None:
    for number, table in enumerate(tables):
        if number:
            echo("")
        for line in table_lines(table, width):
            echo(line.text, style="strong" if line.strong else "")
