"""Tables of rows to look at: missed by all, disagreed about, and labels that look wrong."""

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
from toxbench.util.text import escape_line

_TEXT_LENGTH = 120  # characters of a comment
_WIDTH = 44  # of a cell, so that most tables fit a terminal
Record = dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Shown:
    """How much of the found rows is shown.

    Attributes:
        limit: rows of a table.
        texts: of every row of the whole table; None: no comment is shown.
    """

    limit: int
    texts: Sequence[str] | None = None


def missed_table(predicted: StoredPredictions, shown: Shown) -> Table:
    """Return the rows that every candidate gets wrong, the surest mistakes first."""
    found = find_hard_rows(predicted.targets, predicted.candidates)
    labels, count = _labels(predicted), len(predicted.candidates)
    rows: list[tuple[int, Record]] = [
        (
            missed.row,
            {
                "missed": _with_counts(missed.false_negatives, labels, count),
                "wrongly predicted": _with_counts(missed.false_positives, labels, count),
                "loss": missed.loss,
            },
        )
        for missed in found
    ]
    return _table(
        predicted,
        shown,
        "Rows that every candidate gets wrong",
        ("missed", "wrongly predicted", "loss"),
        rows,
        (
            "Read these rows first: they are hard, or their labels are wrong, or the label's "
            "definition does not cover them. The loss is the mean cross-entropy: the higher, the "
            "surer the mistake. (1 of 2): not every candidate has this label wrong.",
        ),
    )


def disagreement_table(predicted: StoredPredictions, shown: Shown) -> Table:
    """Return the rows of which candidates predict different labels, the widest apart first."""
    labels = _labels(predicted)
    said = {name: f"{escape_line(name)} says" for name in predicted.candidates}
    rows: list[tuple[int, Record]] = []
    for found in find_disagreements(predicted.candidates):
        record: Record = {"given": _listed(_given(predicted, found.row), labels)}
        record |= {said[name]: _listed(own, labels) for name, own in found.predictions.items()}
        rows.append((found.row, record))
    meaning = (
        "What one candidate knows and another does not; the widest apart come first. Where one is "
        "right again and again, look at what these rows have in common."
    )
    alone = "There is one candidate, so nobody disagrees; it takes two."
    return _table(
        predicted,
        shown,
        "Rows about which candidates disagree",
        ("given", *said.values()),
        rows,
        (alone if len(said) == 1 else meaning,),
    )


def suspect_table(predicted: StoredPredictions, shown: Shown) -> Table:
    """Return the labels that candidates confidently contradict, the most suspect first."""
    probabilities = mean_probabilities(predicted.candidates)
    labels = _labels(predicted)
    rows: list[tuple[int, Record]] = [
        (
            found.row,
            {
                "label": labels[found.label],
                "given": "yes" if found.has_label else "no",
                "probability": found.probability,
            },
        )
        for found in find_label_issues(predicted.targets, probabilities)
    ]
    unjudged = np.flatnonzero(~judgeable_labels(predicted.targets, probabilities)).tolist()
    left_out = (
        f"Not judged, with fewer than {ROWS_NEEDED} rows with or without it, or never or always "
        f"predicted: {_listed(unjudged, labels)}.",
    )
    return _table(
        predicted,
        shown,
        "Labels that look wrong",
        ("label", "given", "probability"),
        rows,
        (
            "A suspect label is a hint to look at, not a proof: read the comment, and correct the "
            "table only where the label is wrong. Candidates that learnt little suspect much. "
            "The probability is their mean.",
            *(left_out if unjudged else ()),
        ),
    )


TABLES = {"missed": missed_table, "disagree": disagreement_table, "labels": suspect_table}


def _table(
    predicted: StoredPredictions,
    shown: Shown,
    title: str,
    headers: tuple[str, ...],
    found: Sequence[tuple[int, Record]],
    notes: tuple[str, ...],
) -> Table:
    """Put ids before the found rows, and comments behind them if they are shown."""
    records: list[Record] = []
    for row, record in found[: shown.limit]:
        text = {} if shown.texts is None else {"text": _short(shown.texts[predicted.rows[row]])}
        records.append({"id": escape_line(predicted.ids[row]), **record, **text})
    more = f", the first {len(records)} shown" if len(records) < len(found) else ""
    return Table(
        title=f"{title}: {len(found)}{more}; {len(predicted.rows)} rows were tested",
        headers=("id", *headers, *(() if shown.texts is None else ("text",))),
        rows=tuple(tuple(_cell(name, value) for name, value in r.items()) for r in records),
        notes=(*notes, _counted(predicted)),
        records=tuple(records),
    )


def _counted(predicted: StoredPredictions) -> str:
    """Say whose predictions these are."""
    seeds = {name: len(own) for name, own in predicted.candidates.items()}
    counted = [f"{name} ({n} {'seed' if n == 1 else 'seeds'})" for name, n in seeds.items()]
    without = f"; not counted: {', '.join(predicted.left_out)}" if predicted.left_out else ""
    sample = (
        " Synthetic sample: these are no real comments." if predicted.protocol.synthetic else ""
    )
    return escape_line(
        f"Predictions at threshold 0.5, by the majority of seeds, of {', '.join(counted)}"
        f"{without}.{sample}"
    )


def _labels(predicted: StoredPredictions) -> list[str]:
    return [escape_line(label) for label in predicted.protocol.labels]


def _given(predicted: StoredPredictions, row: int) -> list[int]:
    labels: list[int] = np.flatnonzero(predicted.targets[row]).tolist()
    return labels


def _listed(labels: Iterable[int], names: Sequence[str]) -> str:
    return ", ".join(names[label] for label in labels) or "-"


def _with_counts(votes: Mapping[int, int], names: Sequence[str], candidates: int) -> str:
    """List labels, with the number of candidates where not all have them wrong."""
    parts = (
        names[label] if count == candidates else f"{names[label]} ({count} of {candidates})"
        for label, count in votes.items()
    )
    return ", ".join(parts) or "-"


def _short(text: str) -> str:
    safe = escape_line(text)
    return safe if len(safe) <= _TEXT_LENGTH else f"{safe[: _TEXT_LENGTH - 1]}…"


def _cell(name: str, value: object) -> str:
    """Round numbers and break long lines, but never an id: people search for it."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value) if name == "id" else fill(str(value), _WIDTH)
