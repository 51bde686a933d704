"""``toxbench leaderboard``: print a stored leaderboard again."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toxbench.cli.metrics import WithMetrics
from toxbench.cli.options import FilePath, format_option, plugins_option
from toxbench.errors import SettingsError

if TYPE_CHECKING:
    from toxbench.store.cells import CellStore


_LONGEST = 3600.0


def _seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Read the time between two looks; the word behind --watch may have been meant as a folder."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= _LONGEST:
        raise SettingsError(
            f"--watch {value}: a number of seconds from 0.1 to {_LONGEST:.0f} or nothing stands "
            "there; put folders before --watch"
        )
    return seconds


@click.command(cls=WithMetrics, short_help="Print a stored leaderboard, or watch one grow.")
@click.argument("folders", metavar="[FOLDER]...", type=FilePath(), nargs=-1)
@format_option
@plugins_option
@click.option("--per-label", is_flag=True, help="Print the scores of each label instead.")
@click.option(
    "--watch", "every", is_flag=False, flag_value="2", callback=_seconds, metavar="[SECONDS]",
    help="Print it again whenever it changed, until no run writes to it any more.",
)  # fmt: skip
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def leaderboard(
    folders: tuple[Path, ...],
    name: str | None,
    plugins: tuple[str, ...] | None,
    per_label: bool,
    every: float | None,
    debug: bool,
) -> None:
    """Print the stored leaderboard of FOLDER; without one, the newest in results/.

    Several folders, from several machines say, make one leaderboard if they hold results of the
    same protocol; otherwise what differs is named.
    """
    from toxbench.cli.show import print_headlines, print_labels, print_leaderboard
    from toxbench.cli.watch import watch
    from toxbench.plugin.registry import Registry
    from toxbench.store.find import find_store
    from toxbench.store.ranking import load_leaderboard

    registry = Registry.discover(plugins)
    where = folders or (Path("results"),)
    if every is None:
        show = print_labels if per_label else print_leaderboard
        show(load_leaderboard(*map(find_store, where)), registry, name)
        return
    if name is not None:
        raise SettingsError("--watch is for people, and prints again and again; leave out --format")
    brief = print_labels if per_label else print_headlines

    def print_again(stores: "Sequence[CellStore]") -> None:
        brief(load_leaderboard(*stores), registry, None)

    watch(where, every, print_again)
