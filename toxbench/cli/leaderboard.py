"""``toxbench leaderboard``: print a stored leaderboard."""

from pathlib import Path

import cloup

from toxbench.cli.metrics import WithMetrics
from toxbench.cli.options import (
    OUTPUT,
    FilePath,
    ensembles_option,
    full_option,
    quoted_option,
    results_option,
    rope_option,
    table_options,
)
from toxbench.config import results_folder
from toxbench.plugin.registry import Registry


@cloup.command(cls=WithMetrics, short_help="Print a stored leaderboard.")
@cloup.argument("folders", metavar="[FOLDER]...", type=FilePath(), nargs=-1)
@results_option
@OUTPUT.option("--per-label", is_flag=True, help="Print the scores of each label instead.")
@ensembles_option
@full_option
@quoted_option
@rope_option
@table_options
def leaderboard(
    folders: tuple[Path, ...],
    results: Path | None,
    per_label: bool,
    ensembles: bool,
    full: bool,
    quoted: Path | None,
    rope: float,
    format_name: str | None,
    plugins: tuple[str, ...] | None,
) -> None:
    """Print the leaderboard of the results in FOLDER, by default the newest.

    Several folders, for example of several machines, make one leaderboard if they hold results of
    the same protocol; otherwise the differences are reported.
    """
    from toxbench.cli.output import print_labels, print_leaderboard
    from toxbench.ranking.build import load_leaderboard, with_label_intervals
    from toxbench.ranking.cells import load_cells
    from toxbench.ranking.ensembles import load_ensemble_leaderboard
    from toxbench.ranking.quoted import read_quoted
    from toxbench.store.cells import find_store

    registry = Registry.with_item("formats", format_name or "plain", plugins)
    rows = None if quoted is None else read_quoted(quoted)
    stores = [*map(find_store, folders or (results or results_folder(),))]
    load = load_ensemble_leaderboard if ensembles else load_leaderboard
    board = load(*stores, quoted=rows, rope=rope)
    if per_label:
        _, stored, cells = load_cells(*stores)
        print_labels(with_label_intervals(board, stored, cells), registry, format_name)
    else:
        print_leaderboard(board, registry, format_name, full)
