"""``toxbench compare``: which candidates of a leaderboard can be told apart."""

from pathlib import Path

import click

from toxbench.cli.options import format_option, plugins_option, results_option


@click.command(short_help="Compare candidates pair by pair: who can be told apart?")
@click.argument("names", metavar="[CANDIDATE]...", nargs=-1)
@results_option
@format_option
@plugins_option
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def compare(
    names: tuple[str, ...],
    results: Path | None,
    name: str | None,
    plugins: tuple[str, ...] | None,
    debug: bool,
) -> None:
    """Compare candidates pair by pair, as the leaderboard names them; without names, all.

    The same resampled test rows and seeds for both; p-values are two-sided, and Holm's correction
    is over all pairs of the leaderboard, whichever are asked for.
    """
    from toxbench.cli.console import print_tables
    from toxbench.plugin.registry import Registry
    from toxbench.ranking.build import load_leaderboard
    from toxbench.report.leaderboard import compare_candidates
    from toxbench.store.cells import find_store

    registry = Registry.discover(plugins)
    leaderboard = load_leaderboard(find_store(results or Path("results")))
    print_tables([compare_candidates(leaderboard, names)], registry, name)
