"""Who is first, how sure that is, and what it costs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Row
from toxbench.report.html.elements import (
    Picture,
    Section,
    guide,
    legend,
    name_axis,
    numbered,
    panels,
    picture,
    plain_table,
)
from toxbench.report.html.load import ReportData
from toxbench.report.labels import label_tables
from toxbench.report.leaderboard import terminal_tables
from toxbench.report.notes import conclusions, notes
from toxbench.report.palette import BLUE, GREY, HEAT, RED
from toxbench.report.verdicts import METRICS
from toxbench.util.text import format_duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FASTEST = 0.01  # seconds; on a logarithmic axis nothing costs nothing


def conclusion(findings: ReportData) -> Section:
    """Say in plain words what was found, and what makes it weaker than it looks."""
    board = findings.board
    warnings = [note for note in notes(board) if note.startswith(_WARN)]
    return Section("verdict", "Verdict", [_first(findings), *conclusions(board)], warnings)


_WARN = ("Synthetic", "The split leaks", "stand-in rows", "(constant!)", "No seed of")


def _first(findings: ReportData) -> str:
    """Put the first row into a sentence, beside the best cheap reference."""
    best = findings.board.rows[0]
    words = [f"{best.name} is first with a micro-F1 of {_value(best, 'micro_f1')}"]
    if (sure := best.uncertainty.get("micro_f1")) is not None:
        words.append(f" (95 % interval {sure.low:.3f} to {sure.high:.3f})")
    words.append(f" and all labels right for {_percent(best, 'subset_accuracy')} of the test rows")
    gap = best.values["micro_f1_gap"]
    if gap is not None:
        words.append(f"; on its own train rows its micro-F1 is {gap.mean:.3f} higher")
    others = [row for row in findings.board.rows if row.kind == "baseline" and row is not best]
    if others:
        reference = others[0]
        words.append(f". The best cheap reference, {reference.name}, reaches ")
        words.append(_value(reference, "micro_f1"))
    return f"{''.join(words)}."


def leaderboard(findings: ReportData) -> Section:
    """Show the tables that the terminal shows."""
    first, *others = terminal_tables(findings.board)
    # The page and the verdict above it say its title and notes already, and some of the last one's.
    others[-1] = replace(others[-1], notes=_not_yet_said(others[-1].notes))
    tables = [replace(first, title="Headline scores on test rows", notes=()), *others]
    return Section(
        "leaderboard",
        "Leaderboard",
        tables=tables,
        pictures=[_forest(findings)],
        folded=label_tables(findings.board)[1:],
    )


def _not_yet_said(notes: Sequence[str]) -> tuple[str, ...]:
    return tuple(note for note in notes if not note.startswith(_WARN))


def _forest(findings: ReportData) -> Picture:
    rows = findings.board.rows
    figure, axes = panels(2, 0.7 + 0.26 * len(rows))
    for panel, (metric, words) in zip(axes, METRICS.items(), strict=True):
        for place, row in enumerate(rows):
            _interval(panel, place, row, metric)
        name_axis(panel, [row.name for row in rows])
        panel.set_xlabel(f"{words}, with its 95 % interval", fontsize=8)
        best = rows[0].values[metric]
        if best is not None:
            guide(panel, x=best.mean)
    numbers = plain_table(
        "Scores and 95 % intervals",
        ["candidate", *(f"{w}{end}" for w in METRICS.values() for end in ("", " low", " high"))],
        [[row.name, *(n for m in METRICS for n in _numbers(row, m))] for row in rows],
    )
    alt = f"Forest plot of {len(rows)} candidates: scores with 95 % intervals."
    note = "The grey line is the first row's score: an interval across it says little."
    return picture("forest", alt, figure, numbers, note)


def _interval(panel: "Axes", place: int, row: Row, metric: str) -> None:
    mean, low, high = _numbers(row, metric)
    if mean is None:
        return
    colour = BLUE if row.kind == "backbone" else GREY
    if low is not None and high is not None:
        panel.plot([low, high], [place, place], color=colour, linewidth=1.6)
    panel.plot([mean], [place], "o", color=colour, markersize=5)


def _numbers(row: Row, metric: str) -> tuple[float | None, float | None, float | None]:
    value, sure = row.values[metric], row.uncertainty.get(metric)
    return value.mean if value else None, sure.low if sure else None, sure.high if sure else None


def cost(findings: ReportData) -> Section | None:
    """Draw quality against training time, and which candidates nobody beats in both."""
    rows = [r for r in findings.board.rows if r.values["micro_f1"] and r.values["train_seconds"]]
    if len(rows) < 2:
        return None
    places = [(_seconds(row), row.values["micro_f1"].mean) for row in rows]  # type: ignore[union-attr]
    front = [place for place in sorted(set(places)) if not _beaten(place, places)]
    figure, (axes,) = panels(1, 3.0)
    axes.set_xscale("log")
    axes.step(*zip(*front, strict=True), where="post", color=HEAT, linewidth=1.5, zorder=0)
    for row, place in zip(rows, places, strict=True):
        colour = BLUE if row.kind == "backbone" else GREY
        axes.plot(*place, "o", color=colour, markersize=5)
        above = 3 + 9 * _neighbours(place, places[: rows.index(row)])
        axes.annotate(numbered(rows, row), place, xytext=(5, above), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    axes.set_xlabel("seconds to train one seed", fontsize=8)
    axes.set_ylabel("micro-F1", fontsize=8)
    axes.margins(0.1)
    numbers = plain_table(
        "Quality and cost",
        ("number", "candidate", "micro-F1", "seconds", "nobody is better and cheaper"),
        [
            [i, row.name, place[1], f"{place[0]:.2f}", "yes" if place in front else "no"]
            for i, (row, place) in enumerate(zip(rows, places, strict=True), 1)
        ],
    )
    alt = f"Micro-F1 against training time of {len(rows)} candidates, with the Pareto front."
    note = "Numbers are those of the table. The line is the Pareto front: up and left is better."
    text = _cheapest(rows, places, front)
    return Section("cost", "Quality against cost", [text] if text else [],
                   pictures=[picture("pareto", alt, figure, numbers, note)])  # fmt: skip


def _cheapest(
    rows: Sequence[Row],
    places: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float]],
) -> str:
    best = max(places, key=lambda place: place[1])
    cheaper = [place for place in front if place[0] < best[0]]
    if not cheaper:
        return ""
    second = max(cheaper, key=lambda place: place[1])
    names = [rows[places.index(place)].name for place in (best, second)]
    return (
        f"{names[0]} takes {format_duration(best[0])} a seed; {names[1]} takes "
        f"{format_duration(second[0])} and scores {best[1] - second[1]:.3f} less."
    )


def _neighbours(one: tuple[float, float], others: Sequence[tuple[float, float]]) -> int:
    """Count the places whose numbers would stand on this one's."""
    return sum(abs(math.log10(o[0] / one[0])) < 0.15 and abs(o[1] - one[1]) < 0.02 for o in others)


def _beaten(one: tuple[float, float], others: Sequence[tuple[float, float]]) -> bool:
    return any(o != one and o[0] <= one[0] and o[1] >= one[1] for o in others)


def _seconds(row: Row) -> float:
    value = row.values["train_seconds"]
    return max(_FASTEST, value.mean if value else _FASTEST)


def overfitting(findings: ReportData) -> Section:
    """Show train and test scores side by side."""
    rows = findings.board.rows
    figure, axes = panels(2, 0.9 + 0.34 * len(rows))
    for panel, (metric, words) in zip(axes, METRICS.items(), strict=True):
        for part, shift, colour in (("train_", -0.19, RED), ("", 0.19, BLUE)):
            values = [row.values[f"{part}{metric}"] for row in rows]
            panel.barh(
                [place + shift for place in range(len(rows))],
                [value.mean if value else 0.0 for value in values],
                height=0.34, color=colour, label="train rows" if part else "test rows",
            )  # fmt: skip
        name_axis(panel, [row.name for row in rows])
        panel.set_xlim(0, 1)
        panel.set_xlabel(words, fontsize=8)
        legend(panel, 2)
    alt = f"Bars of train and test scores of {len(rows)} candidates, side by side."
    note = "The wider apart two bars are, the more of the train rows was learned by heart."
    return Section("overfitting", "Overfitting",
                   pictures=[picture("gap", alt, figure, _gaps(rows), note)])  # fmt: skip


def _gaps(rows: Sequence[Row]) -> Table:
    headers = [
        f"{part}{words}" for words in METRICS.values() for part in ("train ", "test ", "gap ")
    ]
    names = [(f"train_{m}", m, f"{m}_gap") for m in METRICS]
    return plain_table(
        "Train and test scores",
        ["candidate", *headers],
        [
            [row.name, *(v.mean if (v := row.values[n]) else None for trio in names for n in trio)]
            for row in rows
        ],
    )


def _value(row: Row, name: str) -> str:
    value = row.values[name]
    return f"{value.mean:.3f}" if value else "-"


def _percent(row: Row, name: str) -> str:
    value = row.values[name]
    return f"{value.mean:.1%}" if value else "-"
