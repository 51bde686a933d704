"""Printing tables."""

from toxbench.cli.output import say, terminal_width
from toxbench.plugin.formats import Table
from toxbench.plugin.registry import Registry
from toxbench.report.labels import label_table, label_tables
from toxbench.report.tables import leaderboard_table, terminal_tables
from toxbench.report.terminal import lines
from toxbench.store.leaderboard import Leaderboard


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
    say("\n\n".join(render(table).strip() for table in tables))


def _print_fitted(tables: list[Table], width: int) -> None:
    for number, table in enumerate(tables):
        if number:
            say("")
        for line in lines(table, width):
            say(line.text, style="strong" if line.strong else "")
