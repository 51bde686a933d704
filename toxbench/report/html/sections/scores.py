"""Sections on scores: summary, leaderboard, training time and overfitting."""

from collections.abc import Sequence
from dataclasses import replace

from toxbench.evaluation.definitions import HEADLINES
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Row
from toxbench.report.html.elements import Picture, Section, create_picture
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
from toxbench.report.labels import label_tables
from toxbench.report.leaderboard import leaderboard_tables
from toxbench.report.notes import (
    GAP_TITLES,
    conclusions,
    explanations,
    quoted_notes,
    warnings,
)
from toxbench.report.tables import create_table
from toxbench.util.text import format_duration, format_value


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
