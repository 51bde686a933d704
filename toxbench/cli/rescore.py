"""``toxbench rescore``: other thresholds, labels or metric, from stored probabilities."""

from pathlib import Path
from typing import Any

import click

from toxbench.cli.console import echo
from toxbench.cli.metrics import WithMetrics
from toxbench.cli.options import (
    FilePath,
    comma_list,
    format_option,
    plugins_option,
    read_table,
    refuse_without_data,
    table_options,
)
from toxbench.evaluation.definitions import HALF, RULES


@click.command(cls=WithMetrics, short_help="Score stored cells anew: thresholds, metric, labels.")
@click.argument("folder", type=FilePath(), required=False)
@click.option(
    "--thresholds", "rule", type=click.Choice(RULES), default=HALF,
    show_default=True, help="Where a probability counts as yes; chosen on validation rows.",
)  # fmt: skip
@click.option("--metric", default="micro_f1", show_default=True, help="What to rank by.")
@click.option(
    "--without", metavar="A,B", callback=comma_list, help="Labels to leave out of everything."
)
@format_option
@plugins_option
@table_options
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def rescore(
    folder: Path | None,
    rule: str,
    metric: str,
    without: tuple[str, ...] | None,
    name: str | None,
    plugins: tuple[str, ...] | None,
    debug: bool,
    **values: Any,
) -> None:
    """Score the stored cells of FOLDER anew; nothing is trained, and nothing is written.

    Without FOLDER, the newest in results/. With --data, only if they are of that very table.
    """
    refuse_without_data(values)
    from toxbench.cli.console import print_leaderboard
    from toxbench.plugin.registry import Registry
    from toxbench.ranking.rescore import rescore as score_again
    from toxbench.store.cells import find_store
    from toxbench.util.text import escape_line

    registry = Registry.discover(plugins)
    store = find_store(folder or Path("results"))
    if values["data"] is not None:
        read_table(store.protocol(), values)
    leaderboard = score_again(store, rule, without or (), metric.replace("-", "_"))
    if name is None:
        left_out = f" without {', '.join(map(escape_line, without))}" if without else ""
        echo(f"Scored anew{left_out}; nothing is stored.\n")
    print_leaderboard(leaderboard, registry, name)
