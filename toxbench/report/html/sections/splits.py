"""Section with the scores of the same candidates on other splits of the table."""

from toxbench.evaluation.definitions import HEADLINES
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Leaderboard
from toxbench.report.html.elements import Section
from toxbench.report.html.load import ReportData
from toxbench.report.notes import known_groups
from toxbench.report.tables import create_table


def other_splits_section(data: ReportData) -> Section | None:
    """Return a table for each other split with a common candidate; None if there is none."""
    tables = [table for other in data.other_splits if (table := _table(data.board, other))]
    if not tables:
        return None
    text = (
        "Scores of the same candidates on other splits of this table. If groups are known in one "
        "split and unknown in the other, the difference is what knowing them is worth. The splits "
        "have other test rows, so the difference has no paired test."
    )
    return Section("splits", "Other splits", [text], tables=tables)


def _table(board: Leaderboard, other: Leaderboard) -> Table | None:
    """Return the scores of the candidates that both leaderboards have; None without any."""
    others = {row.key: row for row in other.rows}
    headers = ["candidate"]
    for title in HEADLINES.values():
        headers += [title, f"{title} there", f"{title} difference"]
    rows: list[list[str | float | None]] = []
    for row in (row for row in board.rows if row.key in others):
        values: list[str | float | None] = [row.name]
        for name in HEADLINES:
            here, there = row.mean(name), others[row.key].mean(name)
            values += [here, there, None if here is None or there is None else there - here]
        rows.append(values)
    return create_table(_title(other), headers, rows) if rows else None


def _title(other: Leaderboard) -> str:
    protocol = other.protocol
    tested = sum(len(fold.test) for fold in protocol.folds)
    groups = known_groups(protocol.audit) or "no known groups"
    return f"Protocol {protocol.fingerprint[:12]}: {tested} test rows, {groups}"
