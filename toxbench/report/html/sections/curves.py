"""How training went, and what another threshold would do."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from toxbench.evaluation.curves import ThresholdCurve, threshold_curve
from toxbench.evaluation.definitions import GLOBAL
from toxbench.ranking.rows import Row
from toxbench.records import CellRecord
from toxbench.report.candidate import mean_epochs
from toxbench.report.html.elements import (
    Section,
    guide,
    legend,
    panels,
    picture,
    plain,
    plain_table,
    series,
)
from toxbench.report.html.load import MAX_PLOTTED, ReportData

_GRID = np.linspace(0, 1, 101)
_SHOWN = range(5, 100, 10)  # thresholds of the table: 0.05, 0.15, ...


def learning(findings: ReportData) -> Section | None:
    """Show loss and validation score of each epoch, mean over cells."""
    trained = [r for r in findings.board.rows if any(c.epochs for c in findings.records[r.name])]
    rows = trained[:MAX_PLOTTED]
    if not rows:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, (losses, scores) = panels(2, 2.6)
    numbers: list[list[str | int | float | None]] = []
    by_steps = False
    for place, row in enumerate(rows):
        line = mean_epochs(findings.records[row.name])
        style = series(place)
        epochs = [e.number for e in line]
        by_steps |= any(e.step is not None for e in line)
        losses.plot(epochs, [e.train_loss for e in line], label=plain(row.name), **style)
        losses.plot(
            epochs, [_number(e.validation_loss) for e in line], color=style["color"],
            linewidth=0.8, linestyle=":", marker=".", markersize=3,
        )  # fmt: skip
        scores.plot(epochs, [_number(e.micro_f1) for e in line], label=plain(row.name), **style)
        numbers += [
            [
                row.name,
                e.number if e.step is None else f"step {e.step}",
                e.train_loss,
                e.validation_loss,
                e.micro_f1,
                e.kept,
            ]
            for e in line
        ]
    for axes, words in ((losses, "loss"), (scores, "validation micro-F1")):
        axes.set_ylabel(words, fontsize=8)
        axes.set_xlabel("look at the validation rows" if by_steps else "epoch", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(losses, len(rows))
    table = plain_table(
        "Each epoch, mean over cells",
        ("candidate", "epoch", "train loss", "validation loss", "validation micro-F1",
         "cells that kept it"), numbers,
    )  # fmt: skip
    alt = f"Learning curves of {len(rows)} candidates: losses and validation micro-F1 by epoch."
    note = "Thick lines are of train rows in training mode, dotted ones of validation rows."
    return Section("learning", "Learning curves",
                   pictures=[picture("learning", alt, figure, table, note)])  # fmt: skip


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def thresholds(findings: ReportData) -> Section:
    """Show precision against recall, and micro-F1 at every threshold."""
    curves = [(row, threshold_curve(*findings.entries(row), _GRID)) for row in findings.drawn]
    figure, (precision, f1) = panels(2, 2.9)
    for place, (row, curve) in enumerate(curves):
        style = series(place)
        precision.plot(curve.recall, curve.precision, label=plain(row.name), **style)
        f1.plot(curve.thresholds, curve.f1, label=plain(row.name), **style)
        chosen = _chosen(findings.records[row.name])
        if chosen is not None:
            f1.plot([chosen], [np.interp(chosen, curve.thresholds, curve.f1)], "o", markersize=5,
                    color=style["color"])  # fmt: skip
    guide(f1, x=0.5)
    precision.set_xlabel("recall", fontsize=8)
    precision.set_ylabel("precision", fontsize=8)
    f1.set_xlabel("threshold, one for all labels", fontsize=8)
    f1.set_ylabel("micro-F1", fontsize=8)
    legend(precision, len(curves))
    alt = "Precision against recall, and micro-F1 against the threshold, on test rows."
    note = (
        "Dots are the global thresholds that were chosen on validation rows, mean over cells. To "
        "choose one by this picture would be to choose it on test rows. "
        f"{findings.omitted_note}"
    )
    numbers = plain_table(
        "Micro scores by threshold, all seeds together, on test rows",
        ("candidate", "threshold", "precision", "recall", "micro-F1"),
        [values for row, curve in curves for values in _points(row, curve)],
    )
    shown = picture("thresholds", alt, figure, numbers, note.strip())
    return Section("thresholds", "Precision, recall and thresholds", pictures=[shown])


def _points(row: Row, curve: ThresholdCurve) -> list[list[str | int | float | None]]:
    return [
        [row.name, f"{curve.thresholds[i]:.2f}", float(curve.precision[i]),
         float(curve.recall[i]), float(curve.f1[i])]
        for i in _SHOWN
    ]  # fmt: skip


def _chosen(records: Sequence[CellRecord]) -> float | None:
    """Return the mean global threshold."""
    found = [record.thresholds[GLOBAL][0] for record in records if record.thresholds.get(GLOBAL)]
    return fmean(found) if found else None
