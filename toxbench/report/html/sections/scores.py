"""Sections on scores: summary, leaderboard, training time and overfitting."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from toxbench.evaluation.definitions import HEADLINES
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Row
from toxbench.report.html.elements import (
    Picture,
    Section,
    create_panels,
    create_picture,
    create_table,
    draw_legend,
    draw_reference_line,
    label_y_axis,
)
from toxbench.report.html.load import ReportData
from toxbench.report.labels import label_tables
from toxbench.report.leaderboard import leaderboard_tables
from toxbench.report.notes import conclusions, explanations, warnings
from toxbench.report.palette import BLUE, GREY, HEAT, RED
from toxbench.util.text import format_duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MIN_SECONDS = 0.01  # a logarithmic axis has no 0
_Point = tuple[float, float]  # training seconds, micro-F1


def summary_section(data: ReportData) -> Section:
    """Return the conclusions, with the warnings that limit them."""
    text = [_first_candidate(data), *conclusions(data.board)]
    return Section("summary", "Summary", text, warnings(data.board))


def leaderboard_section(data: ReportData) -> Section:
    """Return the tables of the terminal, and a picture of the confidence intervals."""
    first, *others = leaderboard_tables(data.board)
    # The heading and the summary contain the title, the conclusions and the warnings.
    first = replace(first, title="Scores on test rows", notes=())
    others[-1] = replace(others[-1], notes=tuple(explanations(data.board)))
    return Section(
        "leaderboard",
        "Leaderboard",
        tables=[first, *others],
        pictures=[_interval_picture(data)],
        collapsed_tables=label_tables(data.board)[1:],
    )


def cost_section(data: ReportData) -> Section | None:
    """Return a picture of scores and training times with the Pareto front."""
    rows = [r for r in data.board.rows if r.values["micro_f1"] and r.values["train_seconds"]]
    if len(rows) < 2:
        return None
    points = [(_seconds(row), row.values["micro_f1"].mean) for row in rows]  # type: ignore[union-attr]
    front = [point for point in sorted(set(points)) if not _is_dominated(point, points)]
    figure, (axes,) = create_panels(1, 3.0)
    axes.set_xscale("log")
    axes.step(*zip(*front, strict=True), where="post", color=HEAT, linewidth=1.5, zorder=0)
    for number, (row, point) in enumerate(zip(rows, points, strict=True), 1):
        colour = BLUE if row.kind == "backbone" else GREY
        axes.plot(*point, "o", color=colour, markersize=5)
        height = 3 + 9 * _count_overlaps(point, points[: number - 1])
        axes.annotate(str(number), point, xytext=(5, height), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    axes.set_xlabel("training seconds per seed", fontsize=8)
    axes.set_ylabel("micro-F1", fontsize=8)
    axes.margins(0.1)
    numbers = create_table(
        "Scores and training times",
        ("number", "candidate", "micro-F1", "train seconds", "Pareto-optimal"),
        [
            [i, row.name, point[1], f"{point[0]:.2f}", "yes" if point in front else "no"]
            for i, (row, point) in enumerate(zip(rows, points, strict=True), 1)
        ],
    )
    alt = f"Micro-F1 against training time of {len(rows)} candidates, with the Pareto front."
    note = (
        "The numbers refer to the table. The line is the Pareto front: no other candidate has "
        "both a higher score and a shorter training time."
    )
    text = _cheaper_candidate(rows, points, front)
    return Section("cost", "Scores and training time", [text] if text else [],
                   pictures=[create_picture("pareto", alt, figure, numbers, note)])  # fmt: skip


def overfitting_section(data: ReportData) -> Section:
    """Return a picture of train and test scores."""
    rows = data.board.rows
    figure, panels = create_panels(2, 0.9 + 0.34 * len(rows))
    for axes, (metric, title) in zip(panels, HEADLINES.items(), strict=True):
        for part, shift, colour in (("train_", -0.19, RED), ("", 0.19, BLUE)):
            values = [row.values[f"{part}{metric}"] for row in rows]
            axes.barh(
                [place + shift for place in range(len(rows))],
                [value.mean if value else 0.0 for value in values],
                height=0.34, color=colour, label="train rows" if part else "test rows",
            )  # fmt: skip
        label_y_axis(axes, [row.name for row in rows])
        axes.set_xlim(0, 1)
        axes.set_xlabel(title, fontsize=8)
        draw_legend(axes, 2)
    alt = f"Bars of train and test scores of {len(rows)} candidates, side by side."
    note = "A train score much higher than the test score means overfitting."
    picture = create_picture("gap", alt, figure, _gap_table(rows), note)
    return Section("overfitting", "Overfitting", pictures=[picture])


def _first_candidate(data: ReportData) -> str:
    """Return a sentence on the first row, in comparison with the best baseline."""
    best = data.board.rows[0]
    interval, gap = best.uncertainty.get("micro_f1"), best.values["micro_f1_gap"]
    text = f"{best.name} ranks first with a micro-F1 of {_score(best, 'micro_f1')}"
    if interval is not None:
        text += f" (95 % confidence interval {interval.low:.3f} to {interval.high:.3f})"
    text += f". It predicts all labels correctly for {_percent(best, 'subset_accuracy')} of the "
    text += "test rows (subset accuracy)."
    if gap is not None:
        direction = "higher" if gap.mean >= 0 else "lower"
        text += f" On its train rows, micro-F1 is {abs(gap.mean):.3f} {direction}."
    baselines = [row for row in data.board.rows if row.kind == "baseline" and row is not best]
    if baselines:
        score = _score(baselines[0], "micro_f1")
        other = "other " if best.kind == "baseline" else ""
        text += f" The best {other}baseline, {baselines[0].name}, has a micro-F1 of {score}."
    return text


def _interval_picture(data: ReportData) -> Picture:
    rows = data.board.rows
    figure, panels = create_panels(2, 0.7 + 0.26 * len(rows))
    for axes, (metric, title) in zip(panels, HEADLINES.items(), strict=True):
        for place, row in enumerate(rows):
            _draw_interval(axes, place, row, metric)
        label_y_axis(axes, [row.name for row in rows])
        axes.set_xlabel(f"{title} with 95 % confidence interval", fontsize=8)
        best = rows[0].values[metric]
        if best is not None:
            draw_reference_line(axes, x=best.mean)
    titles = (f"{title}{end}" for title in HEADLINES.values() for end in ("", " low", " high"))
    numbers = create_table(
        "Scores with 95 % confidence intervals",
        ["candidate", *titles],
        [[row.name, *(n for metric in HEADLINES for n in _interval(row, metric))]
         for row in rows],
    )  # fmt: skip
    alt = f"Forest plot of {len(rows)} candidates: scores with 95 % confidence intervals."
    note = (
        "Backbones are blue, baselines grey. The grey line marks the score of the first candidate."
    )
    return create_picture("forest", alt, figure, numbers, note)


def _draw_interval(axes: "Axes", place: int, row: Row, metric: str) -> None:
    mean, low, high = _interval(row, metric)
    if mean is None:
        return
    colour = BLUE if row.kind == "backbone" else GREY
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
    axes.plot([mean], [place], "o", color=colour, markersize=5)


def _interval(row: Row, metric: str) -> tuple[float | None, float | None, float | None]:
    """Return mean, lower and upper end."""
    value, uncertainty = row.values[metric], row.uncertainty.get(metric)
    mean = value.mean if value else None
    return (mean, uncertainty.low, uncertainty.high) if uncertainty else (mean, None, None)


def _cheaper_candidate(
    rows: Sequence[Row], points: Sequence[_Point], front: Sequence[_Point]
) -> str:
    """Return a sentence on the best candidate that is faster than the best one; "" without any."""
    best = max(points, key=lambda point: point[1])
    faster = [point for point in front if point[0] < best[0]]
    if not faster:
        return ""
    second = max(faster, key=lambda point: point[1])
    names = [rows[points.index(point)].name for point in (best, second)]
    return (
        f"{names[0]} trains in {format_duration(best[0])} per seed; {names[1]} trains in "
        f"{format_duration(second[0])}, with a micro-F1 that is {best[1] - second[1]:.3f} lower."
    )


def _count_overlaps(point: _Point, points: Sequence[_Point]) -> int:
    """Count the points whose numbers would overlap the number of this point."""
    seconds, score = point
    return sum(abs(math.log10(x / seconds)) < 0.15 and abs(y - score) < 0.02 for x, y in points)


def _is_dominated(point: _Point, points: Sequence[_Point]) -> bool:
    """Whether another point is at least as fast and at least as good."""
    return any(p != point and p[0] <= point[0] and p[1] >= point[1] for p in points)


def _seconds(row: Row) -> float:
    value = row.values["train_seconds"]
    return max(_MIN_SECONDS, value.mean if value else _MIN_SECONDS)


def _gap_table(rows: Sequence[Row]) -> Table:
    titles = HEADLINES.values()
    headers = (h for title in titles for h in (f"train {title}", f"test {title}", f"{title} gap"))
    names = [n for m in HEADLINES for n in (f"train_{m}", m, f"{m}_gap")]
    return create_table(
        "Train and test scores",
        ["candidate", *headers],
        [
            [row.name, *(value.mean if (value := row.values[name]) else None for name in names)]
            for row in rows
        ],
    )


def _score(row: Row, name: str) -> str:
    value = row.values[name]
    return f"{value.mean:.3f}" if value else "-"


def _percent(row: Row, name: str) -> str:
    value = row.values[name]
    return f"{value.mean:.1%}" if value else "-"
