"""Print tables and leaderboards. Imported only inside of commands, because it imports numpy."""

from toxbench.cli.console import echo, terminal_width
from toxbench.plugin.contracts import Table
from toxbench.plugin.registry import Registry
from toxbench.ranking.rows import Leaderboard
from toxbench.report.labels import label_table, label_tables
from toxbench.report.leaderboard import leaderboard_table, leaderboard_tables
from toxbench.report.tables import table_lines

_DATA_FORMATS = ("csv", "json")


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
