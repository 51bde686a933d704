"""Sections on scores: of all labels, each label, slices and other splits, and of the train rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from toxbench.evaluation.curves import ConfusionCounts, calibration, confusion_counts
from toxbench.evaluation.definitions import HEADLINES
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Leaderboard, Row
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
from toxbench.report.html.plots import (
    CAPTIONS,
    Point,
    cost_figure,
    cost_front,
    forest_figure,
    gap_figure,
    interval_of,
    timed_rows,
)
from toxbench.report.labels import label_tables, tested_labels
from toxbench.report.leaderboard import leaderboard_tables
from toxbench.report.notes import (
    GAP_TITLES,
    conclusions,
    explanations,
    known_groups,
    quoted_notes,
    warnings,
)
from toxbench.report.tables import Value, create_table
from toxbench.util.text import escape_line, format_duration, format_value


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
    candidates = timed_rows(data)
    if len(candidates) < 2:
        return None
    points = [point for _, point in candidates]
    front = cost_front(points)
    numbers = create_table(
        "Scores and training times",
        ("number", "candidate", "micro-F1", "train seconds", "Pareto-optimal"),
        [
            [i, row.name, point[1], f"{point[0]:.2f}", "yes" if point in front else "no"]
            for i, (row, point) in enumerate(candidates, 1)
        ],
    )
    alt = f"Micro-F1 against training time of {len(points)} candidates, with the Pareto front."
    picture = create_picture("pareto", alt, cost_figure(data), numbers, CAPTIONS["cost"])
    text = _cheaper_candidate(candidates, front)
    return Section("cost", "Scores and training time", [text] if text else [], pictures=[picture])


def overfitting_section(data: ReportData) -> Section:
    """Return a picture of train and test scores."""
    rows = data.board.rows
    alt = f"Bars of train and test scores of {len(rows)} candidates, side by side."
    picture = create_picture("gap", alt, gap_figure(data), _gap_table(rows), CAPTIONS["gap"])
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
    titles = (f"{title}{end}" for title in HEADLINES.values() for end in ("", " low", " high"))
    numbers = create_table(
        "Scores with 95 % confidence intervals",
        ["candidate", *titles],
        [[row.name, *(n for metric in HEADLINES for n in interval_of(row, metric))]
         for row in rows],
    )  # fmt: skip
    alt = f"Forest plot of {len(rows)} candidates: scores with 95 % confidence intervals."
    return create_picture("forest", alt, forest_figure(data), numbers, CAPTIONS["forest"])


def _cheaper_candidate(candidates: Sequence[tuple[Row, Point]], front: Sequence[Point]) -> str:
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


def _gap_table(rows: Sequence[Row]) -> Table:
    names = [name for metric in HEADLINES for name in (f"train_{metric}", metric)]
    headers = [f"{part} {title}" for title in HEADLINES.values() for part in ("train", "test")]
    return create_table(
        "Train and test scores",
        ["candidate", *headers, *GAP_TITLES.values()],
        [[row.name, *map(row.mean, [*names, *GAP_TITLES])] for row in rows],
    )


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


def other_splits_section(data: ReportData) -> Section | None:
    """Return a table for each other split with a common candidate; None if there is none."""
    tables = [table for other in data.other_splits if (table := _table(data.board, other))]
    if not tables:
        return None
    text = (
        "Scores of the same candidates on other splits of this table. If groups are known in one "
        "split and unknown in the other, the difference is what knowing them is worth. The splits "
        "have other test rows, so the difference has no paired test."
    )
    return Section("splits", "Other splits", [text], tables=tables)


def slice_section(data: ReportData) -> Section | None:
    """Return a matrix of the scores of candidates on slices; None if they were not requested."""
    table = data.slices
    if table is None:
        return None
    scores = {(r["candidate"], r["slice"]): r["micro-F1"] for r in table.records}
    names = [escape_line(row.name) for row in data.plotted_rows]
    slices = [n for n in dict.fromkeys(s for _, s in scores) if scores[names[0], n] is not None]
    if not slices:
        return Section("slices", "Scores of slices", tables=[table])
    values = [[cast("float | None", scores[name, n]) for n in slices] for name in names]
    figure, (axes,) = create_panels(1, 1.2 + 0.4 * len(names))
    draw_heat_map(axes, values, list(map(short_name, names)), list(map(str, slices)))
    alt = f"Matrix: micro-F1 of {len(names)} candidates on {len(slices)} slices of the test rows."
    note = f"micro-F1; slices of too few rows are only in the table. {data.omitted_note}"
    picture = create_picture("slices", alt, figure, table, note)
    return Section("slices", "Scores of slices", pictures=[picture])


def _table(board: Leaderboard, other: Leaderboard) -> Table | None:
    """Return the scores of the candidates that both leaderboards have; None without any."""
    others = {row.key: row for row in other.rows}
    headers = ["candidate"]
    for title in HEADLINES.values():
        headers += [title, f"{title} there", f"{title} difference"]
    rows: list[list[str | float | None]] = []
    for row in (row for row in board.rows if row.key in others):
        values: list[str | float | None] = [row.name]
        for name in HEADLINES:
            here, there = row.mean(name), others[row.key].mean(name)
            values += [here, there, None if here is None or there is None else there - here]
        rows.append(values)
    return create_table(_title(other), headers, rows) if rows else None


def _title(other: Leaderboard) -> str:
    protocol = other.protocol
    tested = sum(len(fold.test) for fold in protocol.folds)
    groups = known_groups(protocol.audit) or "no known groups"
    return f"Protocol {protocol.fingerprint[:12]}: {tested} test rows, {groups}"
