"""Print tables, leaderboards and progress. Imported inside of commands: it imports numpy."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from toxbench.benchmark.progress import PREFIXES, TextProgress, WriteLine, terminal_progress
from toxbench.cli.console import Style, echo, terminal_width
from toxbench.plugin.contracts import Table
from toxbench.plugin.registry import Registry
from toxbench.ranking.rows import Leaderboard
from toxbench.report.labels import label_table, label_tables
from toxbench.report.leaderboard import leaderboard_table, leaderboard_tables
from toxbench.report.tables import table_lines

_DATA_FORMATS = ("csv", "json")
_STYLES: Mapping[int, Style] = {logging.ERROR: "error", logging.WARNING: "warning"}


def print_labels(leaderboard: Leaderboard, registry: Registry, format_name: str | None) -> None:
    """Print the scores of each label and candidate; raises as `print_tables`."""
    tables = [label_table(leaderboard)] if format_name else label_tables(leaderboard)
    print_tables(tables, registry, format_name)


def print_leaderboard(
    leaderboard: Leaderboard, registry: Registry, format_name: str | None, full: bool = False
) -> None:
    """Print the first table of a leaderboard, or all if ``full``; raises as `print_tables`.

    CSV and JSON always have all columns.
    """
    if format_name in _DATA_FORMATS:
        tables = [leaderboard_table(leaderboard)]
    else:
        tables = leaderboard_tables(leaderboard)[: None if full else 1]
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
        for line in table_lines(table, width):
            echo(line.text, style="strong" if line.strong else "")


@contextmanager
def progress_for(values: Mapping[str, Any]) -> Iterator[TextProgress]:
    """Yield the progress for ``--quiet``, ``--format``, ``--verbose`` and ``--debug``."""
    is_quiet = values["quiet"] or values["format_name"] is not None
    options = {name: values[name] for name in ("verbose", "debug")}
    level = logging.ERROR if is_quiet else logging.DEBUG if options["verbose"] else logging.INFO
    if sys.stderr.isatty() and not is_quiet:
        with terminal_progress(level, **options) as progress:
            yield progress
    else:
        yield TextProgress(print_from(level), **options)


def print_from(level: int) -> WriteLine:
    """Return a function that prints lines of a level or a higher one on stderr."""

    def write(line: str, line_level: int) -> None:
        if line_level >= level:
            text = f"{PREFIXES.get(line_level, '')}{line}"
            echo(text, err=True, style=_STYLES.get(line_level, ""))

    return write
