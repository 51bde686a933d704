"""Sections on labels: scores, confusion counts and calibration."""

from toxbench.evaluation.curves import ConfusionCounts, calibration, confusion_counts
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Row
from toxbench.report.figures import BLUE, GREY, RED, plot_text
from toxbench.report.html.elements import (
    Picture,
    Section,
    create_panels,
    create_picture,
    draw_heat_map,
    draw_legend,
    draw_reference_line,
    label_y_axis,
    line_style,
    short_name,
)
from toxbench.report.html.load import ReportData
from toxbench.report.labels import label_tables, tested_labels
from toxbench.report.tables import Value, create_table


def label_section(data: ReportData) -> Section:
    """Return pictures of F1 and of the confusion counts of each label."""
    protocol, rows = data.board.protocol, data.plotted_rows
    supports = protocol.tested_supports
    shown = [(i, protocol.labels[i]) for i in tested_labels(protocol).places]
    values = [[row.label_f1[i] if supports[label] else None for row in rows] for i, label in shown]
    figure, (axes,) = create_panels(1, 0.9 + 0.26 * len(values))
    labels = [f"{plot_text(label, 20)} ({supports[label]})" for _, label in shown]
    draw_heat_map(axes, values, labels, [row.name for row in rows])
    alt = f"Heat map: F1 of {len(values)} labels for {len(rows)} candidates."
    note = (
        "The number of positive test rows is in parentheses. F1 of a label with few positive test "
        f"rows is unreliable. {data.omitted_note}"
    )
    numbers = label_tables(data.board)[0]
    picture = create_picture("labels", alt, figure, numbers, note)
    return Section("labels", "Scores of each label",
                   pictures=[picture, _confusion_picture(data)],
                   collapsed_tables=[_confusion_table(data, row) for row in rows[1:]])  # fmt: skip


def calibration_section(data: ReportData) -> Section:
    """Return a reliability diagram: whether 80 % of entries with probability 0.8 are positive."""
    figure, (axes,) = create_panels(1, 3.4)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    numbers: list[list[Value]] = []
    for place, row in enumerate(data.plotted_rows):
        bins = calibration(*data.targets_and_probabilities(row))
        axes.plot(bins.mean_probability, bins.positive_share, marker="o", markersize=3,
                  label=short_name(row.name), **line_style(place))  # fmt: skip
        seeds = len(data.predicted.candidates[row.name])
        for count, mean, share in zip(
            bins.counts.tolist(), bins.mean_probability.tolist(), bins.positive_share.tolist(),
            strict=True,
        ):  # fmt: skip
            numbers.append([row.name, mean, share, round(count / seeds)])
    axes.set(xlabel="predicted probability (ten bins)", ylabel="share of positives")
    draw_legend(axes, len(data.plotted_rows))
    table = create_table(
        "Calibration over all labels and test rows, in ten bins",
        ("candidate", "mean predicted probability", "share of positives", "entries per seed"),
        numbers,
    )
    alt = "Reliability diagram: share of positives against predicted probability."
    note = (
        "On the grey line, the predicted probability equals the share of positives. Below it, the "
        f"predicted probabilities are too high. {data.omitted_note}"
    )
    picture = create_picture("calibration", alt, figure, table, note)
    return Section("calibration", "Calibration", pictures=[picture])


def _confusion_picture(data: ReportData) -> Picture:
    """Draw the confusion counts of the first plotted candidate."""
    row = data.plotted_rows[0]
    labels, counts = _confusion_counts(data, row)
    figure, (axes,) = create_panels(1, 0.9 + 0.26 * len(labels))
    places = range(len(labels))
    true_positives = [c.true_positives for c in counts]
    false_negatives = [c.false_negatives for c in counts]
    false_positives = [-c.false_positives for c in counts]
    axes.barh(places, true_positives, color=BLUE, label="true positives")
    axes.barh(places, false_negatives, left=true_positives, color=GREY, label="false negatives")
    axes.barh(places, false_positives, color=RED, label="false positives")
    draw_reference_line(axes, 0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    label_y_axis(axes, labels)
    axes.set_xlabel("test rows, mean over seeds")
    draw_legend(axes, 3)
    alt = (
        "Bars for each label: true positives, false negatives and false positives of "
        f"{short_name(row.name)}."
    )
    return create_picture("confusion", alt, figure, _confusion_table(data, row))


def _confusion_table(data: ReportData, row: Row) -> Table:
    labels, counts = _confusion_counts(data, row)
    return create_table(
        f"Confusion counts of {row.name} on test rows at threshold 0.5, mean over seeds",
        ("label", "true positives", "false negatives", "false positives", "true negatives"),
        [
            [label, *(f"{count:.1f}".removesuffix(".0") for count in
                      (c.true_positives, c.false_negatives, c.false_positives, c.true_negatives))]
            for label, c in zip(labels, counts, strict=True)
        ],
        tested_labels(data.board.protocol).notes,
    )  # fmt: skip


def _confusion_counts(data: ReportData, row: Row) -> tuple[list[str], list[ConfusionCounts]]:
    """Return the labels to show, and a row's confusion counts of them."""
    places = list(tested_labels(data.board.protocol).places)
    codes, probabilities = data.predicted.codes, data.predicted.candidates[row.name]
    labels = [data.board.protocol.labels[i] for i in places]
    return labels, confusion_counts(codes[:, places], probabilities[:, :, places])
