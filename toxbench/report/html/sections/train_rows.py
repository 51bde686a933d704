"""Section and picture of the scores by the number of train rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toxbench.ranking.learning_curves import CURVE_SCORES, CurvePoint, LearningCurve
from toxbench.report.html.elements import (
    Section,
    create_panels,
    create_picture,
    draw_legend,
    line_style,
    short_name,
)
from toxbench.report.html.load import MAX_PLOTTED, ReportData
from toxbench.report.learning_curves import CURVE_TITLE, curve_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def train_rows_section(data: ReportData) -> Section | None:
    """Return a picture of scores by train rows; None without results on subsets of them."""
    if not data.curves:
        return None
    alt = f"Learning curves of {len(data.curves)} candidates: test scores by train rows."
    omitted = ", ".join(curve.candidate for curve in data.curves[MAX_PLOTTED:])
    note = (
        "Lines are measured; dashed lines with an open circle are forecasts. Bars are 95 % "
        f"intervals. {f'Not plotted: {omitted}.' if omitted else ''}"
    )
    figure, numbers = curve_figure(data.curves), curve_table(data.curves)
    picture = create_picture("train-rows", alt, figure, numbers, note)
    return Section("train-rows", CURVE_TITLE, pictures=[picture])


def curve_figure(curves: Sequence[LearningCurve]) -> "Figure":
    """Draw the measured scores of the first curves, and dashed lines to their forecasts."""
    shown = curves[:MAX_PLOTTED]
    figure, panels = create_panels(len(CURVE_SCORES), 2.6)
    points = [point for curve in shown for point in (*curve.measured, curve.forecast) if point]
    ticks = sorted({point.train_rows for point in points})
    for axes, (name, title) in zip(panels, CURVE_SCORES.items(), strict=True):
        for place, curve in enumerate(shown):
            _draw_curve(axes, curve, name, line_style(place)["color"])
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(ticks, list(map(str, ticks)))
        axes.set(xlabel="train rows", ylabel=title)
    draw_legend(panels[0], len(shown))
    return figure


def _draw_curve(axes: "Axes", curve: LearningCurve, name: str, colour: str) -> None:
    measured = [point for point in curve.measured if name in point.scores]
    label = short_name(curve.candidate)
    _draw_points(axes, measured, name, color=colour, marker="o", label=label)
    if curve.forecast is not None and name in curve.forecast.scores:
        ends = [measured[-1], curve.forecast]
        _draw_points(axes, ends, name, color=colour, linestyle="--")
        _draw_points(axes, ends[1:], name, color=colour, marker="o", markerfacecolor="none")


def _draw_points(axes: "Axes", points: Sequence[CurvePoint], name: str, **style: Any) -> None:
    """Draw a line through points, and a bar for each interval."""
    estimates = [point.scores[name] for point in points]
    rows = [point.train_rows for point in points]
    axes.plot(rows, [e.value for e in estimates], linewidth=1.2, markersize=4, **style)
    for x, interval in zip(rows, (e.interval for e in estimates), strict=True):
        if interval is not None:
            axes.plot([x, x], interval, color=style["color"], linewidth=0.8)
