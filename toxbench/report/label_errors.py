"""Tables of test rows to review: wrong for all candidates, disagreements, likely label errors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np

from toxbench.evaluation.label_errors import (
    ROWS_NEEDED,
    find_disagreements,
    find_hard_rows,
    find_label_issues,
    judgeable_labels,
    mean_probabilities,
)
from toxbench.plugin.contracts import Table
from toxbench.ranking.predictions import StoredPredictions
from toxbench.report.tables import Record
from toxbench.util.text import count_of, escape_line

_TEXT_LENGTH = 120  # characters of a comment
_WIDTH = 44  # characters of a cell, so that most tables fit a terminal


@dataclass(frozen=True)
class DisplayOptions:
    """Limits what a table shows.

    Attributes:
        limit: largest number of rows of a table.
        texts: comment of every row of the data table; None: no comment is shown.
    """

    limit: int
    texts: Sequence[str] | None = None


def missed_table(predicted: StoredPredictions, display: DisplayOptions) -> Table:
    """Return the rows that every candidate gets wrong, the highest loss first."""
    labels, count = _escaped_labels(predicted), len(predicted.candidates)
    rows: list[tuple[int, Record]] = [
        (
            missed.row,
            {
                "false negatives": _join_votes(missed.false_negatives, labels, count),
                "false positives": _join_votes(missed.false_positives, labels, count),
                "cross-entropy": missed.loss,
            },
        )
        for missed in find_hard_rows(predicted.targets, predicted.candidates)
    ]
    return _table(
        predicted,
        display,
        "Rows that every candidate gets wrong",
        ("false negatives", "false positives", "cross-entropy"),
        rows,
        (
            "Review these rows first: they are hard, or their labels are wrong, or the label's "
            "definition does not cover them. (1 of 2): only one of two candidates has this label "
            "wrong. Cross-entropy is the mean over labels, seeds and candidates: higher values "
            "are more confident mistakes.",
        ),
    )


def disagreement_table(predicted: StoredPredictions, display: DisplayOptions) -> Table:
    """Return the rows on which candidates predict different labels, the largest spread first."""
    labels = _escaped_labels(predicted)
    titles = {name: f"predicted by {escape_line(name)}" for name in predicted.candidates}
    rows: list[tuple[int, Record]] = []
    for disagreement in find_disagreements(predicted.candidates):
        record: Record = {"given labels": _join_labels(_given(predicted, disagreement.row), labels)}
        record |= {
            titles[name]: _join_labels(predictions, labels)
            for name, predictions in disagreement.predictions.items()
        }
        rows.append((disagreement.row, record))
    meaning = (
        "Rows with the largest difference between predicted probabilities come first. If one "
        "candidate is often right, look for what these rows have in common."
    )
    only_one = "Only one candidate is included; a disagreement needs two."
    return _table(
        predicted,
        display,
        "Rows on which candidates disagree",
        ("given labels", *titles.values()),
        rows,
        (only_one if len(titles) == 1 else meaning,),
    )


def suspect_table(predicted: StoredPredictions, display: DisplayOptions) -> Table:
    """Return the given labels that candidates confidently contradict, the most suspect first."""
    probabilities = mean_probabilities(predicted.candidates)
    labels = _escaped_labels(predicted)
    rows: list[tuple[int, Record]] = [
        (
            issue.row,
            {
                "label": labels[issue.label],
                "given label": "yes" if issue.has_label else "no",
                "predicted probability": issue.probability,
            },
        )
        for issue in find_label_issues(predicted.targets, probabilities)
    ]
    skipped = np.flatnonzero(~judgeable_labels(predicted.targets, probabilities)).tolist()
    skipped_note = (
        f"Labels not checked, because fewer than {ROWS_NEEDED} rows have them or lack them, or "
        f"because they are predicted for no row or for every row: {_join_labels(skipped, labels)}.",
    )
    return _table(
        predicted,
        display,
        "Likely label errors",
        ("label", "given label", "predicted probability"),
        rows,
        (
            "A likely label error is a hint, not a proof: read the comment, and correct the table "
            "only if the label is wrong. Poorly trained candidates cause many false alarms. The "
            "probability is the mean over candidates.",
            *(skipped_note if skipped else ()),
        ),
    )


TABLES = {"missed": missed_table, "disagree": disagreement_table, "labels": suspect_table}


def _table(
    predicted: StoredPredictions,
    display: DisplayOptions,
    title: str,
    headers: tuple[str, ...],
    rows: Sequence[tuple[int, Record]],
    notes: tuple[str, ...],
) -> Table:
    """Add ids as the first column and, if they are shown, comments as the last one."""
    records: list[Record] = []
    for row, record in rows[: display.limit]:
        records.append({"id": escape_line(predicted.ids[row]), **record})
        if display.texts is not None:
            records[-1]["text"] = _shorten(display.texts[predicted.rows[row]])
    limit = f" (first {len(records)} listed)" if len(records) < len(rows) else ""
    return Table(
        title=f"{title}: {len(rows)} in {len(predicted.rows)} test rows{limit}",
        headers=("id", *headers, *(() if display.texts is None else ("text",))),
        rows=tuple(tuple(_cell(name, value) for name, value in r.items()) for r in records),
        notes=(*notes, _candidates_note(predicted)),
        records=tuple(records),
    )


def _candidates_note(predicted: StoredPredictions) -> str:
    """Return a note on the candidates that are included."""
    included = [f"{name} ({count_of(len(p), 'seed')})" for name, p in predicted.candidates.items()]
    omitted = f" Not included: {', '.join(predicted.left_out)}." if predicted.left_out else ""
    sample = " Synthetic sample: not real comments." if predicted.protocol.synthetic else ""
    return escape_line(
        "Predictions are at threshold 0.5, by the majority of seeds, and come from "
        f"{', '.join(included)}.{omitted}{sample}"
    )


def _escaped_labels(predicted: StoredPredictions) -> list[str]:
    return [escape_line(label) for label in predicted.protocol.labels]


def _given(predicted: StoredPredictions, row: int) -> list[int]:
    labels: list[int] = np.flatnonzero(predicted.targets[row]).tolist()
    return labels


def _join_labels(labels: Iterable[int], names: Sequence[str]) -> str:
    return ", ".join(names[label] for label in labels) or "-"


def _join_votes(votes: Mapping[int, int], names: Sequence[str], candidates: int) -> str:
    """Join labels, each with the number of candidates that have it wrong unless all have."""
    parts = (
        names[label] if count == candidates else f"{names[label]} ({count} of {candidates})"
        for label, count in votes.items()
    )
    return ", ".join(parts) or "-"


def _shorten(text: str) -> str:
    safe = escape_line(text)
    return safe if len(safe) <= _TEXT_LENGTH else f"{safe[: _TEXT_LENGTH - 1]}…"


def _cell(name: str, value: object) -> str:
    """Round numbers and wrap long texts; an id stays on one line, so that a search finds it."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value) if name == "id" else fill(str(value), _WIDTH)
