"""The labels one by one: scores, mistakes and how far probabilities can be believed."""

from toxbench.evaluation.curves import calibration, confusion_counts
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Row
from toxbench.report.html.elements import (  # fmt: skip
    Picture,
    Section,
    guide,
    heat,
    legend,
    name_axis,
    panels,
    picture,
    plain,
    plain_table,
    series,
)
from toxbench.report.html.load import ReportData
from toxbench.report.labels import label_tables
from toxbench.report.palette import BLUE, GREY, RED


def per_label(findings: ReportData) -> Section:
    """Show F1 of each label for each candidate, with how many rows it rests on."""
    protocol, rows = findings.board.protocol, findings.drawn
    supports = protocol.tested_supports
    values = [
        [row.label_f1[i] if supports[label] else None for row in rows]
        for i, label in enumerate(protocol.labels)
    ]
    figure, (axes,) = panels(1, 0.9 + 0.26 * len(values))
    heat(axes, values)
    names = [f"{plain(label, 20)} ({supports[label]})" for label in protocol.labels]
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(rows)), [plain(r.name, 22) for r in rows], rotation=25, ha="right")
    alt = f"Heat map: F1 of {len(values)} labels for {len(rows)} candidates."
    note = f"In brackets the positive test rows: F1 of few of them is luck. {findings.omitted_note}"
    numbers = label_tables(findings.board)[0]
    pictures = [picture("labels", alt, figure, numbers, note.strip()), _confusion(findings)]
    return Section("labels", "Label by label", pictures=pictures,
                   folded=[_counts(findings, row) for row in rows[1:]])  # fmt: skip


def _confusion(findings: ReportData) -> Picture:
    """Draw hits, misses and false alarms of the first candidate."""
    row, labels = findings.drawn[0], findings.board.protocol.labels
    counts = confusion_counts(findings.predicted.targets, findings.predicted.candidates[row.name])
    figure, (axes,) = panels(1, 0.9 + 0.26 * len(labels))
    places = range(len(labels))
    hits = [c.true_positives for c in counts]
    missed = [c.false_negatives for c in counts]
    axes.barh(places, hits, color=BLUE, label="found")
    axes.barh(places, missed, left=hits, color=GREY, label="missed")
    axes.barh(places, [-c.false_positives for c in counts], color=RED, label="false alarms")
    guide(axes, x=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    name_axis(axes, labels)
    axes.set_xlabel("test rows, mean over seeds", fontsize=8)
    legend(axes, 3)
    alt = f"Bars for each label: rows found, missed and falsely reported by {plain(row.name)}."
    return picture("confusion", alt, figure, _counts(findings, row))


def _counts(findings: ReportData, row: Row) -> Table:
    counts = confusion_counts(findings.predicted.targets, findings.predicted.candidates[row.name])
    labels = findings.board.protocol.labels
    return plain_table(
        f"Test rows of each label as {row.name} predicts them, at 0.5, mean over seeds",
        ("label", "found", "missed", "false alarms", "rightly passed over"),
        [
            [
                label, *(
                    f"{n:.1f}".removesuffix(".0") for n in
                    (c.true_positives, c.false_negatives, c.false_positives, c.true_negatives)
                ),
            ]
            for label, c in zip(labels, counts, strict=True)
        ],
    )  # fmt: skip


def calibrated(findings: ReportData) -> Section:
    """Show whether 0.8 means that four of five are positive."""
    figure, (axes,) = panels(1, 3.4)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    numbers: list[list[str | int | float | None]] = []
    for place, row in enumerate(findings.drawn):
        found = calibration(*findings.entries(row))
        axes.plot(found.mean_probability, found.positive_share, marker="o", markersize=3,
                  label=plain(row.name), **series(place))  # fmt: skip
        seeds = len(findings.predicted.candidates[row.name])
        for count, mean, share in zip(
            found.counts.tolist(), found.mean_probability.tolist(), found.positive_share.tolist(),
            strict=True,
        ):  # fmt: skip
            numbers.append([row.name, mean, share, round(count / seeds)])
    axes.set_xlabel("predicted probability (ten bins)", fontsize=8)
    axes.set_ylabel("share of positives", fontsize=8)
    legend(axes, len(findings.drawn))
    table = plain_table(
        "Calibration: all labels of all test rows in ten bins",
        ("candidate", "mean probability", "share of positives", "entries a seed"), numbers,
    )  # fmt: skip
    alt = "Reliability diagram: share of positives against predicted probability."
    note = (
        "On the grey line, probabilities mean what they say; below it, a candidate is too sure. "
        f"{findings.omitted_note}"
    )
    return Section("calibration", "Calibration",
                   pictures=[picture("calibration", alt, figure, table, note.strip())])  # fmt: skip
