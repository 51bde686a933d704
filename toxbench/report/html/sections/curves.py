"""Sections with curves: scores by epoch, by the number of train rows, and by threshold."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from toxbench.evaluation.curves import ThresholdCurve, threshold_curve
from toxbench.evaluation.definitions import GLOBAL
from toxbench.ranking.learning_curves import CHECK, CURVE_SCORES, MEASURED, CurvePoint
from toxbench.ranking.rows import Row
from toxbench.records import CellRecord, EpochRecord
from toxbench.report.candidate import mean_epochs
from toxbench.report.figures import PAPER
from toxbench.report.html.elements import (
    Section,
    create_panels,
    create_picture,
    draw_legend,
    draw_reference_line,
    line_style,
    short_name,
)
from toxbench.report.html.load import MAX_PLOTTED, ReportData
from toxbench.report.html.plots import CAPTIONS, learning_figure, trained_rows
from toxbench.report.learning_curves import CURVE_TITLE, curve_table
from toxbench.report.tables import Value, create_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = np.linspace(0, 1, 101)
_TABLE_POINTS = range(5, 100, 10)  # indices of the grid: thresholds 0.05, 0.15, ...


def learning_section(data: ReportData) -> Section | None:
    """Return a picture of the losses and the validation score of each epoch, mean over cells."""
    rows = trained_rows(data)
    if not rows:
        return None
    numbers = [
        _epoch_values(row, epoch) for row in rows for epoch in mean_epochs(data.records[row.name])
    ]
    table = create_table(
        "Learning curves, mean over cells",
        ("candidate", "epoch", "train loss", "validation loss", "validation micro-F1"),
        numbers,
    )
    alt = f"Learning curves of {len(rows)} candidates: losses and validation micro-F1 by epoch."
    picture = create_picture("learning", alt, learning_figure(data), table, CAPTIONS["learning"])
    return Section("learning", "Learning curves", pictures=[picture])


def train_rows_section(data: ReportData) -> Section | None:
    """Return a picture of scores by train rows; None without results on subsets of them."""
    if not data.curves:
        return None
    shown = data.curves[:MAX_PLOTTED]
    ticks = sorted({point.train_rows for _, curve in shown for point in curve})
    figure, panels = create_panels(len(CURVE_SCORES), 2.6)
    for axes, (name, title) in zip(panels, CURVE_SCORES.items(), strict=True):
        for place, (candidate, curve) in enumerate(shown):
            _draw_scores(axes, curve, name, line_style(place)["color"], short_name(candidate))
        axes.set(xscale="log", xlabel="train rows", ylabel=title)
        axes.minorticks_off()
        axes.set_xticks(ticks, list(map(str, ticks)))
    draw_legend(panels[0], len(shown))
    alt = f"Learning curves of {len(shown)} candidates: test scores by train rows."
    note = "Dashed lines are forecasts. Bars are 95 % intervals."
    picture = create_picture("train-rows", alt, figure, curve_table(data.curves), note)
    return Section("train-rows", CURVE_TITLE, pictures=[picture])


def threshold_section(data: ReportData) -> Section:
    """Return a picture of precision against recall, and of micro-F1 by threshold."""
    curves = [
        (row, threshold_curve(*data.targets_and_probabilities(row), _GRID))
        for row in data.plotted_rows
    ]
    figure, (precision, f1) = create_panels(2, 2.9)
    for place, (row, curve) in enumerate(curves):
        style = line_style(place)
        precision.plot(curve.recall, curve.precision, label=short_name(row.name), **style)
        f1.plot(curve.thresholds, curve.f1, label=short_name(row.name), **style)
        threshold = _mean_global_threshold(data.records[row.name])
        if threshold is not None:
            f1.plot([threshold], [np.interp(threshold, curve.thresholds, curve.f1)], "o",
                    markersize=5, color=style["color"])  # fmt: skip
    draw_reference_line(f1, 0.5)
    precision.set(xlabel="micro-recall", ylabel="micro-precision")
    f1.set(xlabel="threshold, the same for all labels", ylabel="micro-F1")
    draw_legend(precision, len(curves))
    alt = "Precision against recall, and micro-F1 against the threshold, on test rows."
    note = (
        "Dots mark the global thresholds that were chosen on validation rows, mean over cells. Do "
        "not choose a threshold from this picture: that would be a choice on test rows. "
        f"{data.omitted_note}"
    )
    numbers = create_table(
        "Scores by threshold on test rows, over all seeds",
        ("candidate", "threshold", "micro-precision", "micro-recall", "micro-F1"),
        [values for row, curve in curves for values in _threshold_values(row, curve)],
    )
    picture = create_picture("thresholds", alt, figure, numbers, note)
    return Section("thresholds", "Precision, recall and thresholds", pictures=[picture])


def _epoch_values(row: Row, epoch: EpochRecord) -> list[Value]:
    number = epoch.epoch if epoch.step is None else f"step {epoch.step}"
    validation = epoch.validation
    return [row.name, number, epoch.train_loss, validation["loss"], validation["micro_f1"]]


def _draw_scores(
    axes: "Axes", curve: Sequence[CurvePoint], name: str, colour: str, label: str
) -> None:
    """Draw a line through measured scores, a dashed one to the forecast, and intervals."""
    points = [point for point in curve if point.kind != CHECK and name in point.scores]
    measured = sum(point.kind == MEASURED for point in points)
    x, scores = [point.train_rows for point in points], [point.scores[name] for point in points]
    y = [score.value for score in scores]
    axes.plot(x, y, "o--", color=colour, markersize=4, markerfacecolor=PAPER)
    axes.plot(x[:measured], y[:measured], "o-", color=colour, markersize=4, label=label)
    for rows, score in zip(x, scores, strict=True):
        if score.interval:
            axes.plot([rows, rows], score.interval, color=colour, linewidth=0.8)


def _threshold_values(row: Row, curve: ThresholdCurve) -> list[list[Value]]:
    return [
        [row.name, f"{curve.thresholds[i]:.2f}", float(curve.precision[i]),
         float(curve.recall[i]), float(curve.f1[i])]
        for i in _TABLE_POINTS
    ]  # fmt: skip


def _mean_global_threshold(records: Sequence[CellRecord]) -> float | None:
    values = [record.thresholds[GLOBAL][0] for record in records if record.thresholds.get(GLOBAL)]
    return fmean(values) if values else None
