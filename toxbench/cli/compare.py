"""``toxbench compare``: which candidates of a leaderboard can be told apart."""

from pathlib import Path

import cloup

from toxbench.cli.options import ensembles_option, results_option, rope_option, table_options
from toxbench.config import results_folder
from toxbench.plugin.registry import Registry


@cloup.command(short_help="Test the differences between candidates.")
@cloup.argument("names", metavar="[CANDIDATE]...", nargs=-1)
@results_option
@ensembles_option
@rope_option
@table_options
def compare(
    names: tuple[str, ...],
    results: Path | None,
    ensembles: bool,
    rope: float,
    format_name: str | None,
    plugins: tuple[str, ...] | None,
) -> None:
    """Test the difference of each pair of candidates, named as on the leaderboard.

    Without names, all candidates. Both are scored on the same resampled test rows; p-values are
    two-sided, with Holm's correction for all pairs of the leaderboard that are not constant. A
    backbone with one seed is not tested.
    """
    from toxbench.cli.output import print_tables
    from toxbench.ranking.build import load_leaderboard
    from toxbench.ranking.ensembles import load_ensemble_leaderboard
    from toxbench.report.leaderboard import compare_candidates
    from toxbench.store.cells import find_store

    registry = Registry.with_item("formats", format_name or "plain", plugins)
    load = load_ensemble_leaderboard if ensembles else load_leaderboard
    leaderboard = load(find_store(results or results_folder()), rope=rope)
    print_tables([compare_candidates(leaderboard, names)], registry, format_name)
