"""Printing leaderboards."""

from toxbench.cli.output import say
from toxbench.plugin.formats import Table
from toxbench.plugin.registry import Registry
from toxbench.report.labels import label_table, label_tables
from toxbench.report.tables import leaderboard_table, terminal_tables
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
    """Print tables in the format of that name; None is the one for people.

    Raises:
        SettingsError: there is no such format.
    """
    render = registry.report_format(name or "plain").item.render
    say("\n\n".join(render(table).strip() for table in tables))
