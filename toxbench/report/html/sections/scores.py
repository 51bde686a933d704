"""Sections on scores: summary, leaderboard, training time and overfitting."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from toxbench.evaluation.definitions import HEADLINES
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Row
from toxbench.report.figures import BLUE, GREY, HEAT, RED
from toxbench.report.html.elements import (
    Picture,
    Section,
    create_panels,
    create_picture,
    draw_legend,
    draw_reference_line,
    label_y_axis,
)
from toxbench.report.html.load import ReportData
from toxbench.report.labels import label_tables
from toxbench.report.leaderboard import leaderboard_tables
from toxbench.report.notes import (
    GAP_MEANING,
    GAP_TITLES,
    conclusions,
    explanations,
    quoted_notes,
    warnings,
)
from toxbench.report.tables import create_table
from toxbench.util.text import format_duration, format_value

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
    first = replace(first, title="Scores on test rows", notes=tuple(quoted_notes(data.board)))
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
    candidates: list[tuple[Row, _Point]] = [
        (row, (max(_MIN_SECONDS, seconds), score))
        for row in data.board.rows
        if (seconds := row.mean("train_seconds")) is not None
        and (score := row.mean("micro_f1")) is not None
    ]
    if len(candidates) < 2:
        return None
    points = [point for _, point in candidates]
    front = [point for point in sorted(set(points)) if not _is_dominated(point, points)]
    figure, (axes,) = create_panels(1, 3.0)
    axes.set_xscale("log")
    axes.step(*zip(*front, strict=True), where="post", color=HEAT, linewidth=1.5, zorder=0)
    for number, (row, point) in enumerate(candidates, 1):
        colour = GREY if row.kind == "baseline" else BLUE
        axes.plot(*point, "o", color=colour, markersize=5)
        height = 3 + 9 * _count_overlaps(point, points[: number - 1])
        axes.annotate(str(number), point, xytext=(5, height), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    axes.set(xlabel="training seconds per seed", ylabel="micro-F1")
    axes.margins(0.1)
    numbers = create_table(
        "Scores and training times",
        ("number", "candidate", "micro-F1", "train seconds", "Pareto-optimal"),
        [
            [i, row.name, point[1], f"{point[0]:.2f}", "yes" if point in front else "no"]
            for i, (row, point) in enumerate(candidates, 1)
        ],
    )
    alt = f"Micro-F1 against training time of {len(points)} candidates, with the Pareto front."
    note = (
        "The numbers refer to the table. The line is the Pareto front: no other candidate has "
        "both a higher score and a shorter training time."
    )
    text = _cheaper_candidate(candidates, front)
    return Section("cost", "Scores and training time", [text] if text else [],
                   pictures=[create_picture("pareto", alt, figure, numbers, note)])  # fmt: skip


def overfitting_section(data: ReportData) -> Section:
    """Return a picture of train and test scores."""
    rows = data.board.rows
    figure, panels = create_panels(2, 0.9 + 0.34 * len(rows))
    for axes, (metric, title) in zip(panels, HEADLINES.items(), strict=True):
        for part, shift, colour in (("train_", -0.19, RED), ("", 0.19, BLUE)):
            values = [row.mean(f"{part}{metric}") or 0.0 for row in rows]
            axes.barh(
                [place + shift for place in range(len(rows))], values, height=0.34,
                color=colour, label="train rows" if part else "test rows",
            )  # fmt: skip
        label_y_axis(axes, [row.name for row in rows])
        axes.set_xlim(0, 1)
        axes.set_xlabel(title)
        draw_legend(axes, 2)
    alt = f"Bars of train and test scores of {len(rows)} candidates, side by side."
    picture = create_picture("gap", alt, figure, _gap_table(rows), GAP_MEANING)
    return Section("overfitting", "Overfitting", pictures=[picture])


def _first_candidate(data: ReportData) -> str:
    """Return a sentence on the first row, in comparison with the best baseline."""
    best = data.board.rows[0]
    interval, gap = best.uncertainty.get("micro_f1"), best.mean("micro_f1_gap")
    accuracy = best.mean("subset_accuracy")
    text = f"{best.name} ranks first with a micro-F1 of {format_value(best.mean('micro_f1'))}"
    if interval is not None:
        text += f" (95 % confidence interval {interval.low:.3f} to {interval.high:.3f})"
    share = "-" if accuracy is None else f"{accuracy:.1%}"
    text += f". It predicts all labels correctly for {share} of the test rows (subset accuracy)."
    if gap is not None:
        direction = "higher" if gap >= 0 else "lower"
        text += f" On its train rows, micro-F1 is {abs(gap):.3f} {direction}."
    baselines = [row for row in data.board.rows if row.kind == "baseline" and row is not best]
    if baselines:
        score = format_value(baselines[0].mean("micro_f1"))
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
        axes.set_xlabel(f"{title} with 95 % confidence interval")
        best = rows[0].mean(metric)
        if best is not None:
            draw_reference_line(axes, best)
    titles = (f"{title}{end}" for title in HEADLINES.values() for end in ("", " low", " high"))
    numbers = create_table(
        "Scores with 95 % confidence intervals",
        ["candidate", *titles],
        [[row.name, *(n for metric in HEADLINES for n in _interval(row, metric))]
         for row in rows],
    )  # fmt: skip
    alt = f"Forest plot of {len(rows)} candidates: scores with 95 % confidence intervals."
    note = "Baselines are grey, others blue. The grey line marks the score of the first candidate."
    return create_picture("forest", alt, figure, numbers, note)


def _draw_interval(axes: "Axes", place: int, row: Row, metric: str) -> None:
    mean, low, high = _interval(row, metric)
    if mean is None:
        return
    colour = GREY if row.kind == "baseline" else BLUE
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
    axes.plot([mean], [place], "o", color=colour, markersize=5)


def _interval(row: Row, metric: str) -> tuple[float | None, float | None, float | None]:
    """Return mean, lower and upper end."""
    mean, uncertainty = row.mean(metric), row.uncertainty.get(metric)
    return (mean, uncertainty.low, uncertainty.high) if uncertainty else (mean, None, None)


def _cheaper_candidate(candidates: Sequence[tuple[Row, _Point]], front: Sequence[_Point]) -> str:
    """Return a sentence on the best candidate that is faster than the best one; "" without any."""
    best = max((point for _, point in candidates), key=lambda point: point[1])
    faster = [point for point in front if point[0] < best[0]]
    if not faster:
        return ""
    second = max(faster, key=lambda point: point[1])
    names = [next(row.name for row, p in candidates if p == point) for point in (best, second)]
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


def _gap_table(rows: Sequence[Row]) -> Table:
    names = [name for metric in HEADLINES for name in (f"train_{metric}", metric)]
    headers = [f"{part} {title}" for title in HEADLINES.values() for part in ("train", "test")]
    return create_table(
        "Train and test scores",
        ["candidate", *headers, *GAP_TITLES.values()],
        [[row.name, *map(row.mean, [*names, *GAP_TITLES])] for row in rows],
    )
