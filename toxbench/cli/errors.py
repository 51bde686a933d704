"""``toxbench errors``: which rows to look at, from stored results."""

from pathlib import Path
from typing import Any

import click

from toxbench.cli.options import (
    FilePath,
    format_option,
    plugins_option,
    show_text_options,
    texts_to_show,
)
from toxbench.errors import SettingsError

_ONE_TABLE = ("csv", "json")  # formats that hold one table a file


@click.command(short_help="List rows to read, and labels that look wrong, by id.")
@click.argument("folder", type=FilePath(), required=False)
@click.option(
    "--table",
    "which",
    type=click.Choice(["missed", "disagree", "labels"]),
    help="Print this one alone; csv and json need it.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Rows of each table, in every format.",
)
@format_option
@plugins_option
@show_text_options
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def errors(
    folder: Path | None,
    which: str | None,
    limit: int,
    name: str | None,
    plugins: tuple[str, ...] | None,
    **values: Any,
) -> None:
    """Print rows to look at, by id, from the results in FOLDER; without one, the newest.

    Test rows that every candidate misses, those that they disagree about, and labels that look
    wrong. Nothing is trained, and no comment is printed without --show-text.
    """
    from toxbench.cli.console import print_tables
    from toxbench.plugin.registry import Registry
    from toxbench.ranking.predictions import load_predictions
    from toxbench.report.label_errors import TABLES, DisplayOptions
    from toxbench.store.cells import find_store

    if name in _ONE_TABLE and which is None:
        raise SettingsError(f"{name} holds one table; choose with --table missed|disagree|labels")
    registry = Registry.discover(plugins)
    registry.report_format(name or "plain")  # refused now, not after seconds
    predicted = load_predictions(find_store(folder or Path("results")))
    display = DisplayOptions(limit, texts_to_show(predicted.protocol, values))
    tables = [make(predicted, display) for key, make in TABLES.items() if which in {None, key}]
    print_tables(tables, registry, name)
