"""``toxbench leaderboard``: print a stored leaderboard again."""

from pathlib import Path

import click

from toxbench.cli.metrics import WithMetrics
from toxbench.cli.options import FilePath, format_option, plugins_option


@click.command(cls=WithMetrics, short_help="Print a stored leaderboard.")
@click.argument("folders", metavar="[FOLDER]...", type=FilePath(), nargs=-1)
@format_option
@plugins_option
@click.option("--per-label", is_flag=True, help="Print the scores of each label instead.")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def leaderboard(
    folders: tuple[Path, ...],
    name: str | None,
    plugins: tuple[str, ...] | None,
    per_label: bool,
    debug: bool,
) -> None:
    """Print the stored leaderboard of FOLDER; without one, the newest in results/.

    Several folders, from several machines say, make one leaderboard if they hold results of the
    same protocol; otherwise what differs is named.
    """
    from toxbench.cli.console import print_labels, print_leaderboard
    from toxbench.plugin.registry import Registry
    from toxbench.ranking.build import load_leaderboard
    from toxbench.store.cells import find_store

    registry = Registry.discover(plugins)
    show = print_labels if per_label else print_leaderboard
    stores = map(find_store, folders or (Path("results"),))
    show(load_leaderboard(*stores), registry, name)
