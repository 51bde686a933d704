"""Section with the scores by the number of train rows."""

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from toxbench.ranking.learning_curves import CURVE_SCORES, FORECAST, MEASURED, CurvePoint
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


def train_rows_section(data: ReportData) -> Section | None:
    """Return a picture of scores by train rows; None without results on subsets of them."""
    if not data.curves:
        return None
    shown = dict(islice(data.curves.items(), MAX_PLOTTED))
    ticks = sorted({point.train_rows for curve in shown.values() for point in curve})
    figure, panels = create_panels(len(CURVE_SCORES), 2.6)
    for axes, (name, title) in zip(panels, CURVE_SCORES.items(), strict=True):
        for place, (candidate, curve) in enumerate(shown.items()):
            known = [point for point in curve if name in point.scores]
            measured = [point for point in known if point.kind == MEASURED]
            forecast = [point for point in known if point.kind == FORECAST]
            style = {"color": line_style(place)["color"], "label": short_name(candidate)}
            _draw(axes, (measured[-1:] + forecast), name, linestyle="--", mfc="none", **style)
            _draw(axes, measured, name, **style)
        axes.set(xscale="log", xlabel="train rows", ylabel=title)
        axes.minorticks_off()
        axes.set_xticks(ticks, list(map(str, ticks)))
    draw_legend(panels[0], len(shown))
    alt = f"Learning curves of {len(shown)} candidates: test scores by train rows."
    note = f"{CURVE_TITLE}. Dashed lines are forecasts. Bars are 95 % intervals."
    picture = create_picture("train-rows", alt, figure, curve_table(data.curves), note)
    return Section("train-rows", CURVE_TITLE, pictures=[picture])


def _draw(axes: "Axes", points: Sequence[CurvePoint], name: str, **style: Any) -> None:
    rows = [point.train_rows for point in points]
    values = [point.scores[name] for point in points]
    axes.plot(rows, [value for value, _ in values], marker="o", markersize=4, **style)
    for x, (_, interval) in zip(rows, values, strict=True):
        if interval:
            axes.plot([x, x], interval, color=style["color"], linewidth=0.8)
