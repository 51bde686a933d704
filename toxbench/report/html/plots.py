"""The pictures that the page and the Python API share: scores, gaps, costs, learning curves."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from toxbench.evaluation.curves import pareto_front
from toxbench.evaluation.definitions import HEADLINES
from toxbench.ranking.rows import Row
from toxbench.records import EpochRecord
from toxbench.report.candidate import mean_epochs
from toxbench.report.figures import BLUE, GREY, HEAT, RED
from toxbench.report.html.elements import (
    create_panels,
    draw_legend,
    draw_reference_line,
    label_y_axis,
    line_style,
    short_name,
)
from toxbench.report.html.load import MAX_PLOTTED, ReportData
from toxbench.report.notes import GAP_MEANING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MIN_SECONDS = 0.01  # a logarithmic axis has no 0
Point = tuple[float, float]  # training seconds, micro-F1


def forest_figure(data: ReportData) -> "Figure":
    """Draw each row's headline scores with their 95 % confidence intervals, if there are any."""
    rows = data.board.rows
    figure, panels = create_panels(2, 0.7 + 0.26 * len(rows))
    for axes, (metric, title) in zip(panels, HEADLINES.items(), strict=True):
        for place, row in enumerate(rows):
            _draw_interval(axes, place, row, metric)
        label_y_axis(axes, [row.name for row in rows])
        has_intervals = any(metric in row.uncertainty for row in rows)
        axes.set_xlabel(f"{title} with 95 % confidence interval" if has_intervals else title)
        best = rows[0].mean(metric)
        if best is not None:
            draw_reference_line(axes, best)
    return figure


def gap_figure(data: ReportData) -> "Figure":
    """Draw each row's headline scores on train and test rows side by side."""
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
    return figure


def cost_figure(data: ReportData) -> "Figure":
    """Draw micro-F1 against training time, and the Pareto front."""
    candidates = timed_rows(data)
    points = [point for _, point in candidates]
    figure, (axes,) = create_panels(1, 3.0)
    axes.set_xscale("log")
    if points:
        front = cost_front(points)
        axes.step(*zip(*front, strict=True), where="post", color=HEAT, linewidth=1.5, zorder=0)
    for number, (row, point) in enumerate(candidates, 1):
        colour = GREY if row.kind == "baseline" else BLUE
        axes.plot(*point, "o", color=colour, markersize=5)
        height = 3 + 9 * _count_overlaps(point, points[: number - 1])
        axes.annotate(str(number), point, xytext=(5, height), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    axes.set(xlabel="training seconds per seed", ylabel="micro-F1")
    axes.margins(0.1)
    return figure


def learning_figure(data: ReportData) -> "Figure":
    """Draw the losses and the validation score of each epoch, mean over cells."""
    from matplotlib.ticker import MaxNLocator

    figure, (losses, scores) = create_panels(2, 2.6)
    rows, by_steps = trained_rows(data), False
    for place, row in enumerate(rows):
        epochs = mean_epochs(data.records[row.name])
        style = line_style(place)
        x = [e.epoch for e in epochs]
        by_steps |= any(e.step is not None for e in epochs)
        losses.plot(x, [e.train_loss for e in epochs], label=short_name(row.name), **style)
        losses.plot(
            x, _scores(epochs, "loss"), color=style["color"], linewidth=0.8, linestyle=":",
            marker=".", markersize=3,
        )  # fmt: skip
        scores.plot(x, _scores(epochs, "micro_f1"), label=short_name(row.name), **style)
    for axes, label in ((losses, "loss"), (scores, "validation micro-F1")):
        axes.set_ylabel(label)
        axes.set_xlabel("evaluation on validation rows" if by_steps else "epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if rows:
        draw_legend(losses, len(rows))
    return figure


PLOTS: Mapping[str, Callable[[ReportData], "Figure"]] = {
    "forest": forest_figure,
    "gap": gap_figure,
    "cost": cost_figure,
    "learning": learning_figure,
}
CAPTIONS: Mapping[str, str] = {
    "forest": "Baselines are grey, others blue. The grey line marks the score of the first "
    "candidate.",
    "gap": GAP_MEANING,
    "cost": "The numbers count the candidates, the best one first. The line is the Pareto front: "
    "no other candidate has both a higher score and a shorter training time.",
    "learning": "Thick lines are train losses (in training mode), thin dotted lines validation "
    "losses. Each is the mean over cells: training runs of one seed on one fold.",
}


def timed_rows(data: ReportData) -> list[tuple[Row, Point]]:
    """Return the rows that have a training time and a score, with both."""
    return [
        (row, (max(_MIN_SECONDS, seconds), score))
        for row in data.board.rows
        if (seconds := row.mean("train_seconds")) is not None
        and (score := row.mean("micro_f1")) is not None
    ]


def cost_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other point beats in both time and score, the fastest first."""
    return pareto_front(sorted(set(points)), lambda point: (point[0], -point[1]))


def trained_rows(data: ReportData) -> list[Row]:
    """Return the best rows that were trained in epochs, at most `MAX_PLOTTED`."""
    trained = [row for row in data.board.rows if any(c.epochs for c in data.records[row.name])]
    return trained[:MAX_PLOTTED]


def interval_of(row: Row, metric: str) -> tuple[float | None, float | None, float | None]:
    """Return mean, lower and upper end."""
    mean, uncertainty = row.mean(metric), row.uncertainty.get(metric)
    return (mean, uncertainty.low, uncertainty.high) if uncertainty else (mean, None, None)


def _draw_interval(axes: "Axes", place: int, row: Row, metric: str) -> None:
    mean, low, high = interval_of(row, metric)
    if mean is None:
        return
    colour = GREY if row.kind == "baseline" else BLUE
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
    axes.plot([mean], [place], "o", color=colour, markersize=5)


def _count_overlaps(point: Point, points: Sequence[Point]) -> int:
    """Count the points whose numbers would overlap the number of this point."""
    seconds, score = point
    return sum(abs(math.log10(x / seconds)) < 0.15 and abs(y - score) < 0.02 for x, y in points)


def _scores(epochs: Sequence[EpochRecord], name: str) -> list[float]:
    values = [epoch.validation[name] for epoch in epochs]
    return [math.nan if value is None else value for value in values]
