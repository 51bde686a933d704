"""Candidates of a stored leaderboard, pair by pair."""

from collections.abc import Sequence

from toxbench.errors import SettingsError
from toxbench.evaluation.significance import Difference
from toxbench.leaderboard.rows import Leaderboard
from toxbench.plugin.contracts import Table
from toxbench.report.comparison import comparison_table, turned, verdict
from toxbench.report.notes import caveats


def comparison(leaderboard: Leaderboard, names: Sequence[str]) -> Table:
    """Return the differences of every pair of some candidates, and a verdict on each.

    Args:
        leaderboard: with all candidates; the correction for their number is over all of them.
        names: as the leaderboard shows them; none: all.

    Raises:
        SettingsError: there is no such candidate, or only one.
    """
    pairs = chosen_pairs(leaderboard, names)
    return comparison_table(pairs, [*map(verdict, pairs), *caveats(leaderboard)])


def chosen_pairs(leaderboard: Leaderboard, names: Sequence[str]) -> list[Difference]:
    """Return the differences between some candidates, in the order of their names; raises alike."""
    known = [row.name for row in leaderboard.rows]
    wanted = list(dict.fromkeys(names)) or known
    for name in wanted:
        if name not in known:
            raise SettingsError(
                f"no candidate {name!r} on the leaderboard; it has: {', '.join(known) or 'none'}"
            )
    if len(wanted) < 2:
        raise SettingsError("a comparison needs two candidates that the leaderboard has")
    place = {name: i for i, name in enumerate(wanted)}
    pairs = [d for d in leaderboard.differences if d.one in place and d.other in place]
    return [d if place[d.one] < place[d.other] else turned(d) for d in pairs]
