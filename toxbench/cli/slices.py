"""``toxbench slices``: scores of parts of the test rows, from stored probabilities."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from toxbench.cli.options import (
    DATA,
    OUTPUT,
    names_option,
    results_argument,
    stored_table_options,
    table_options,
    terms_option,
)
from toxbench.cli.stored_table import check_table_options, read_table
from toxbench.config import results_folder
from toxbench.errors import SettingsError
from toxbench.plugin.registry import Registry

if TYPE_CHECKING:
    from toxbench.ranking.predictions import StoredPredictions
    from toxbench.util.arrays import Members


@cloup.command(short_help="Score parts of the test rows, such as groups of people.")
@results_argument
@names_option(DATA, "--by", "Columns whose values are the slices, instead of identity terms.")
@terms_option
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
    from toxbench.cli.tables import print_tables
    from toxbench.ranking.pool import FoldPooler
    from toxbench.ranking.predictions import load_predictions, varied_candidates
    from toxbench.report.slices import auc_table, score_table
    from toxbench.store.cells import find_store

    check_table_options(values)
    registry = Registry.with_item("formats", values["format_name"] or "plain", values["plugins"])
    store = find_store(results or results_folder())
    predicted = load_predictions(store, varied_candidates)
    parts = _find_slices(predicted, values)
    if table == "auc":
        content = auc_table(predicted, parts)
    else:
        units = FoldPooler(predicted.protocol, store.rows()).units
        content = score_table(predicted, units, parts)
    print_tables([content], registry, values["format_name"])


def _find_slices(predicted: "StoredPredictions", values: Mapping[str, Any]) -> "dict[str, Members]":
    """Return the slices of the test rows; raises `SettingsError`, and as `read_table`."""
    from toxbench.data.slices import column_slices, read_terms, term_slices

    protocol, rows, members = predicted.protocol, predicted.rows.tolist(), dict[str, "Members"]()
    if not values["by"]:
        terms, texts = read_terms(values["terms"]), read_table(protocol, values).texts
        return term_slices(terms, (texts[row] for row in rows))
    if values["terms"] is not None:
        raise SettingsError("--by and --terms both choose the slices; give one of them")
    if values["data"] is None:
        raise SettingsError("--by: columns are not stored with results; add --data FILE")
    for name in values["by"]:
        # A table holds one column in addition to texts, ids and labels: that of groups.
        roles = {"group_column": name, "labels": values["labels"] or protocol.labels}
        table = read_table(protocol, {**values, **roles})
        if name == table.columns["text"]:
            raise SettingsError("--by names the comments, which are never printed; name another")
        cells = table.groups or ()
        members |= column_slices(name, [cells[row] for row in rows])
    return members
