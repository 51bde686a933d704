"""Printing a stored leaderboard."""

import click

from toxbench.plugin.registry import Registry
from toxbench.report.tables import label_table, label_tables, leaderboard_table, terminal_tables
from toxbench.store.cells import CellStore
from toxbench.store.ranking import load_leaderboard


def print_labels(store: CellStore, registry: Registry, name: str | None) -> None:
    """Print the scores of each label and candidate; raises as `print_leaderboard`."""
    render = registry.report_format(name or "plain").item.render
    leaderboard = load_leaderboard(store)
    tables = [label_table(leaderboard)] if name else label_tables(leaderboard)
    click.echo("\n\n".join(render(table).strip() for table in tables))


def print_leaderboard(store: CellStore, registry: Registry, name: str | None) -> None:
    """Print a leaderboard for people, or in the format of that name.

    Raises:
        SettingsError: there is no such format.
        StorageError: the folder cannot be read.
    """
    if name is not None:
        report_format = registry.report_format(name).item
        click.echo(report_format.render(leaderboard_table(load_leaderboard(store))))
        return
    plain = registry.report_format("plain").item
    tables = terminal_tables(load_leaderboard(store))
    click.echo("\n\n".join(plain.render(table).strip() for table in tables))
