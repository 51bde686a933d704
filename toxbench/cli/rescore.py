"""``toxbench rescore``: other thresholds, labels or metric, from stored probabilities."""

from pathlib import Path
from typing import Any

import click
import cloup

from toxbench.cli.console import echo
from toxbench.cli.metrics import WithMetrics
from toxbench.cli.options import (
    OUTPUT,
    comma_list,
    full_option,
    results_argument,
    stored_table_options,
    table_options,
    thresholds_option,
)
from toxbench.cli.stored_table import check_table_options, read_table
from toxbench.config import results_folder
from toxbench.errors import SettingsError
from toxbench.evaluation.definitions import HALF, RANKING_METRIC
from toxbench.plugin.registry import Registry

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@cloup.command(cls=WithMetrics, short_help="Rank by other thresholds, metrics or labels.")
@results_argument
@thresholds_option("Rule that chooses thresholds on the validation rows.")
@OUTPUT.option("--metric", default=RANKING_METRIC, show_default=True, help="Metric to rank by.")
@OUTPUT.option("--without", metavar="A,B", callback=comma_list, help="Labels to leave out.")
@OUTPUT.option(
    "--recall", type=_SHARE, metavar="SHARE",
    help="Print thresholds of labels that have this recall on new rows, and their precision.",
)  # fmt: skip
@OUTPUT.option("--label", metavar="NAME", help="Only this label, for --recall. [all]")
@OUTPUT.option(
    "--confidence", type=_SHARE, metavar="SHARE",
    help="Probability that a threshold has the recall. [0.95]",
)  # fmt: skip
@full_option
@stored_table_options
@table_options
def rescore(
    results: Path | None,
    rule: str,
    metric: str,
    without: tuple[str, ...] | None,
    recall: float | None,
    label: str | None,
    confidence: float | None,
    full: bool,
    format_name: str | None,
    plugins: tuple[str, ...] | None,
    **values: Any,
) -> None:
    """Score the stored cells of FOLDER again; nothing is trained or written.

    With --data, results of any other table are refused.
    """
    check_table_options(values)
    from toxbench.cli.output import print_leaderboard, print_tables
    from toxbench.ranking.build import rescore as score_again
    from toxbench.report.labels import recall_table
    from toxbench.store.cells import find_store
    from toxbench.util.text import escape_line

    registry = Registry.with_item("formats", format_name or "plain", plugins)
    store = find_store(results or results_folder())
    if values["data"] is not None:
        read_table(store.protocol(), values)
    if recall is not None:
        if full or without or rule != HALF or metric != RANKING_METRIC:
            raise SettingsError("--recall needs none of --thresholds, --metric, --without, --full")
        table = recall_table(store, recall, confidence or 0.95, label)
        print_tables([table], registry, format_name)
        return
    if label is not None or confidence is not None:
        raise SettingsError("--label and --confidence are for --recall; add --recall SHARE")
    leaderboard = score_again(store, rule, without or (), metric.replace("-", "_"))
    if format_name is None:
        left_out = f" without {', '.join(map(escape_line, without))}" if without else ""
        echo(f"Scored again{left_out}; nothing is stored.\n")
    print_leaderboard(leaderboard, registry, format_name, full)
