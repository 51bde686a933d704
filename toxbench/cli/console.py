"""Print text and tables, with control characters escaped.

Colour is added on a terminal, unless ``NO_COLOR`` is set, and elsewhere with ``FORCE_COLOR``.
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
from toxbench.report.terminal import lines
from toxbench.util.text import escape_text

Style = Literal["", "error", "warning", "strong"]
_STYLES: dict[Style, dict[str, str | bool]] = {
    "error": {"fg": "red"},
    "warning": {"fg": "yellow"},
    "strong": {"bold": True},
}


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


def print_labels(leaderboard: Leaderboard, registry: Registry, format_name: str | None) -> None:
    """Print the scores of each label and candidate; raises as `print_tables`."""
    tables = [label_table(leaderboard)] if format_name else label_tables(leaderboard)
    print_tables(tables, registry, format_name)


def print_leaderboard(
    leaderboard: Leaderboard, registry: Registry, format_name: str | None, full: bool = False
) -> None:
    """Print a leaderboard.

    Args:
        leaderboard: to print.
        registry: finds the format.
        format_name: None prints for reading.
        full: print all tables for reading, not only the first.

    Raises:
        SettingsError: there is no such format.
    """
    if format_name:
        tables = [leaderboard_table(leaderboard)]
    else:
        tables = terminal_tables(leaderboard)
        tables = tables if full else tables[:1]
    print_tables(tables, registry, format_name)


def print_tables(tables: list[Table], registry: Registry, format_name: str | None) -> None:
    """Print tables in a format; None prints for reading, fitted to the width of a terminal.

    Raises:
        SettingsError: there is no such format.
    """
    width = terminal_width()
    if format_name is None and width is not None:
        _print_fitted(tables, width)
        return
    render = registry.report_format(format_name or "plain").item.render
    echo("\n\n".join(render(table).strip() for table in tables))


def _print_fitted(tables: list[Table], width: int) -> None:
    for number, table in enumerate(tables):
        if number:
            echo("")
        for line in lines(table, width):
            echo(line.text, style="strong" if line.strong else "")
