"""Sections with the scores of the same candidates on slices, and on other splits."""

from typing import cast

from toxbench.evaluation.definitions import HEADLINES
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Leaderboard
from toxbench.report.html.elements import (
    Section,
    create_panels,
    create_picture,
    draw_heat_map,
    short_name,
)
from toxbench.report.html.load import ReportData
from toxbench.report.notes import known_groups
from toxbench.report.tables import create_table
from toxbench.util.text import escape_line


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


def slice_section(data: ReportData) -> Section | None:
    """Return a matrix of the scores of candidates on slices; None if they were not requested."""
    table = data.slices
    if table is None:
        return None
    scores = {(r["candidate"], r["slice"]): r["micro-F1"] for r in table.records}
    names = [escape_line(row.name) for row in data.plotted_rows]
    slices = [n for n in dict.fromkeys(s for _, s in scores) if scores[names[0], n] is not None]
    if not slices:
        return Section("slices", "Scores of slices", tables=[table])
    values = [[cast("float | None", scores[name, n]) for n in slices] for name in names]
    figure, (axes,) = create_panels(1, 1.2 + 0.4 * len(names))
    draw_heat_map(axes, values, list(map(short_name, names)), list(map(str, slices)))
    alt = f"Matrix: micro-F1 of {len(names)} candidates on {len(slices)} slices of the test rows."
    note = f"micro-F1; slices of too few rows are only in the table. {data.omitted_note}"
    picture = create_picture("slices", alt, figure, table, note)
    return Section("slices", "Scores of slices", pictures=[picture])


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
