"""Test rows: how far candidates agree, and which rows to look at."""

from toxbench.evaluation.curves import agreement
from toxbench.report.html.elements import Section, heat, panels, picture, plain, plain_table
from toxbench.report.html.load import Findings
from toxbench.report.label_errors import TABLES, Shown

_LIMIT = 20


def agreeing(findings: Findings) -> Section | None:
    """Show for how many rows two candidates predict the same labels."""
    names = [row.name for row in findings.drawn]
    if len(names) < 2:
        return None
    shares = agreement({name: findings.predicted.candidates[name] for name in names}).tolist()
    figure, (axes,) = panels(1, 1.0 + 0.4 * len(names))
    heat(axes, shares)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_xticks(range(len(names)), [plain(n, 22) for n in names], rotation=25, ha="right")
    numbers = plain_table(
        "Share of test rows with the same predicted labels", ["candidate", *names],
        [[name, *row] for name, row in zip(names, shares, strict=True)],
    )  # fmt: skip
    alt = f"Matrix: share of test rows for which two of {len(names)} candidates agree."
    note = f"Seeds of a candidate decide by their mean probability. {findings.not_drawn}"
    return Section("agreement", "Agreement between candidates",
                   pictures=[picture("agreement", alt, figure, numbers, note.strip())])  # fmt: skip


def to_look_at(findings: Findings) -> Section:
    """List rows worth reading, by id; their texts only where those were asked for."""
    shown = Shown(_LIMIT, findings.texts)
    text = (
        "Where to look first; toxbench errors prints more of them."
        if findings.texts is not None
        else "By id, without the comments; toxbench report --show-text --data FILE shows those."
    )
    tables = [make(findings.predicted, shown) for make in TABLES.values()]
    return Section("rows", "Rows to look at", [text], folded=tables)
