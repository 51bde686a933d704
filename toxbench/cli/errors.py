"""``toxbench errors``: which rows to look at, from stored results."""

from pathlib import Path
from typing import Any

import click
import cloup

from toxbench.cli.options import (
    OUTPUT,
    results_argument,
    show_text_options,
    table_options,
)
from toxbench.cli.stored_table import texts_to_show
from toxbench.config import results_folder
from toxbench.errors import SettingsError
from toxbench.plugin.registry import Registry

_ONE_TABLE = ("csv", "json")  # formats that hold one table a file


@cloup.command(short_help="List rows to read, and labels that look wrong, by id.")
@results_argument
@OUTPUT.option(
    "--table", "which", type=click.Choice(["missed", "disagree", "labels"]),
    help="Print only this table; csv and json need it.",
)  # fmt: skip
@OUTPUT.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
    help="Rows of each table, in every format.",
)  # fmt: skip
@show_text_options
@table_options
def errors(
    results: Path | None,
    which: str | None,
    limit: int,
    format_name: str | None,
    plugins: tuple[str, ...] | None,
    **values: Any,
) -> None:
    """List test rows that are worth reading, by id, from the results in FOLDER.

    Rows that every candidate gets wrong, rows on which candidates disagree, and labels that look
    wrong. Nothing is trained, and no comment is printed without --show-text.
    """
    from toxbench.cli.output import print_tables
    from toxbench.ranking.predictions import load_predictions
    from toxbench.report.predictions import TABLES, DisplayOptions
    from toxbench.store.cells import find_store

    if format_name in _ONE_TABLE and which is None:
        raise SettingsError(
            f"{format_name} holds one table; choose with --table missed|disagree|labels"
        )
    registry = Registry.with_item("formats", format_name or "plain", plugins)
    registry.report_format(format_name or "plain")  # raises before seconds of work
    predicted = load_predictions(find_store(results or results_folder()))
    shown = DisplayOptions(limit, texts_to_show(predicted.protocol, values))
    tables = [make(predicted, shown) for key, make in TABLES.items() if which in {None, key}]
    print_tables(tables, registry, format_name)
