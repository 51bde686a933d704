"""``toxbench slices``: scores of parts of the test rows, from stored probabilities."""

from pathlib import Path
from typing import Any

import click
import cloup

from toxbench.cli.options import (
    OUTPUT,
    results_argument,
    slice_options,
    stored_table_options,
    table_options,
)
from toxbench.cli.stored_table import check_table_options, find_slices
from toxbench.config import results_folder
from toxbench.plugin.registry import Registry


@cloup.command(short_help="Score parts of the test rows, such as groups of people.")
@results_argument
@slice_options
@OUTPUT.option(
    "--table", type=click.Choice(["scores", "auc"]), default="scores", show_default=True,
    help="micro-F1 with differences, or AUCs of each label.",
)  # fmt: skip
@stored_table_options
@table_options
def slices(results: Path | None, table: str, **values: Any) -> None:
    """Compare the scores of parts of the test rows with those of the other rows.

    The parts are the comments that mention a group of people, by the words of --terms, or the
    values of the columns --by. Nothing is trained, and no comment is printed.
    """
    from toxbench.cli.output import print_tables
    from toxbench.ranking.cells import FoldPooler
    from toxbench.ranking.predictions import load_predictions, varied_candidates
    from toxbench.report.predictions import auc_table, score_table
    from toxbench.store.cells import find_store

    check_table_options(values)
    registry = Registry.with_item("formats", values["format_name"] or "plain", values["plugins"])
    store = find_store(results or results_folder())
    predicted = load_predictions(store, varied_candidates)
    parts = find_slices(predicted.protocol, values)
    if table == "auc":
        content = auc_table(predicted, parts)
    else:
        units = FoldPooler(predicted.protocol, store.rows()).units
        content = score_table(predicted, units, parts)
    print_tables([content], registry, values["format_name"])
