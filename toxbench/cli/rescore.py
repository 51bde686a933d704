"""``toxbench rescore``: other thresholds, labels or metric, from stored probabilities."""

from pathlib import Path
from typing import Any

import cloup

from toxbench.cli.console import echo
from toxbench.cli.metrics import WithMetrics
from toxbench.cli.options import (
    OUTPUT,
    comma_list,
    debug_option,
    format_option,
    full_option,
    plugins_option,
    results_argument,
    stored_table_options,
    thresholds_option,
)
from toxbench.cli.stored_table import check_table_options, read_table
from toxbench.evaluation.definitions import RANKING_METRIC
from toxbench.plugin.registry import Registry


@cloup.command(cls=WithMetrics, short_help="Rank by other thresholds, metrics or labels.")
@results_argument
@thresholds_option("Rule that chooses thresholds on the validation rows.")
@OUTPUT.option("--metric", default=RANKING_METRIC, show_default=True, help="Metric to rank by.")
@OUTPUT.option("--without", metavar="A,B", callback=comma_list, help="Labels to leave out.")
@full_option
@format_option
@plugins_option
@stored_table_options
@debug_option
def rescore(
    results: Path | None,
    rule: str,
    metric: str,
    without: tuple[str, ...] | None,
    full: bool,
    format_name: str | None,
    plugins: tuple[str, ...] | None,
    **values: Any,
) -> None:
    """Score the stored cells of FOLDER again; nothing is trained or written.

    With --data, results of any other table are refused.
    """
    check_table_options(values)
    from toxbench.cli.tables import print_leaderboard
    from toxbench.ranking.rescore import rescore as score_again
    from toxbench.store.cells import find_store
    from toxbench.util.text import escape_line

    registry = Registry.with_item("formats", format_name or "plain", plugins)
    store = find_store(results or Path("results"))
    if values["data"] is not None:
        read_table(store.protocol(), values)
    leaderboard = score_again(store, rule, without or (), metric.replace("-", "_"))
    if format_name is None:
        left_out = f" without {', '.join(map(escape_line, without))}" if without else ""
        echo(f"Scored again{left_out}; nothing is stored.\n")
    print_leaderboard(leaderboard, registry, format_name, full)
