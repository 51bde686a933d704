"""Tables of the predictions of test rows: slices, and rows to review."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np

from toxbench.evaluation.bootstrap import Units
from toxbench.evaluation.label_errors import (
    ROWS_NEEDED,
    find_disagreements,
    find_hard_rows,
    find_label_issues,
    judgeable_labels,
    mean_probabilities,
)
from toxbench.evaluation.row_counts import row_counts
from toxbench.evaluation.slices import compare_slices, power_mean, slice_aucs
from toxbench.evaluation.thresholds import POSITIVES_NEEDED, predict
from toxbench.plugin.contracts import Table
from toxbench.ranking.predictions import StoredPredictions
from toxbench.report.tables import Record, records_table
from toxbench.util.arrays import UNLABELLED, Members, Probabilities
from toxbench.util.text import count_of, escape_line

_TEXT_LENGTH = 120  # characters of a comment
_WIDTH = 44  # characters of a cell, so that most tables fit a terminal
Slices = Mapping[str, Members]  # name -> which test rows
_NUMBERS = "micro-F1", "low", "high", "difference", "difference low", "difference high", "p (Holm)"
_AUCS = "subgroup", "bpsn", "bnsp"


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


def score_table(predicted: StoredPredictions, units: Units, slices: Slices) -> Table:
    """Return one row for each candidate and slice with test rows; ``units`` are those of rows."""
    targets, records = predicted.targets, list[Record]()
    nothing = (None,) * len(_NUMBERS)
    non_empty = {name: members for name, members in slices.items() if members.any()}
    for candidate, probabilities in predicted.candidates.items():
        predictions = [predict(seed, [0.5] * targets.shape[1]) for seed in probabilities]
        counts = np.stack([row_counts(targets, seed) for seed in predictions])
        scores = compare_slices(counts, units, non_empty)
        for name, members in non_empty.items():
            records.append(
                {
                    "candidate": escape_line(candidate),
                    "slice": escape_line(name),
                    "rows": int(members.sum()),
                    "positive rows": int(targets[members].any(axis=1).sum()),
                    **dict(zip(_NUMBERS, scores.get(name, nothing), strict=True)),
                }
            )
    is_grouped = len(set(units.tolist())) < len(units)
    counted = "groups with positive rows" if is_grouped else "positive rows"
    omitted = ", ".join(map(escape_line, sorted(slices.keys() - non_empty.keys()))) or "none"
    return records_table(
        "micro-F1 of slices of the test rows at threshold 0.5, mean over seeds",
        records,
        (
            "Low and high are the ends of 95 % confidence intervals. The difference is to the "
            "other test rows; p is corrected for the slices of a candidate.",
            "micro-F1 also depends on the share of positive rows, which differs between slices; "
            "the AUCs of --table auc do not.",
            f"-: the slice or the other test rows have fewer than {POSITIVES_NEEDED} {counted}, "
            f"too few for an interval. Slices without a test row: {omitted}.",
        ),
        ("candidate", "slice", "rows", "positive rows", *_NUMBERS),
        keys=2,
    )


def auc_table(predicted: StoredPredictions, slices: Slices) -> Table:
    """Return the AUCs of each candidate, label and slice, and their power mean over slices."""
    records: list[Record] = []
    for candidate, probabilities in predicted.candidates.items():
        for column, label in enumerate(predicted.protocol.labels):
            names: Record = {"candidate": escape_line(candidate), "label": escape_line(label)}
            codes = predicted.codes[:, column]
            labelled = codes != UNLABELLED
            known = {name: members[labelled] for name, members in slices.items()}
            aucs = _auc_records(codes[labelled] == 1, probabilities[:, labelled, column], known)
            records += (names | record for record in aucs)
    return records_table(
        "ROC AUC of each label in slices of the test rows, mean over seeds",
        records,
        (
            "Subgroup: rows of the slice. BPSN (background positive, subgroup negative): positives "
            "of the other rows, negatives of the slice; low if the slice has false positives. "
            "BNSP: the reverse; low if positives of the slice are missed. The power mean over the "
            "slices has the power -5 (Borkan et al. 2019).",
            f"Not shown: AUCs with fewer than {POSITIVES_NEEDED} positive or negative rows.",
        ),
        ("candidate", "label", "slice", "positive rows", *_AUCS),
        keys=3,
    )


def _auc_records(
    positive: Members, probabilities: Probabilities, slices: Slices
) -> Iterator[Record]:
    """Yield the slices with an AUC, and the power means if there are several."""
    columns: dict[str, list[float | None]] = {kind: [] for kind in _AUCS}
    for name, members in slices.items():
        aucs = slice_aucs(positive, probabilities, members)
        if set(aucs.values()) != {None}:
            count = int((members & positive).sum())
            yield {"slice": escape_line(name), "positive rows": count, **aucs}
        for kind, auc in aucs.items():
            columns[kind].append(auc)
    means = {kind: power_mean(column) for kind, column in columns.items()}
    if set(means.values()) != {None}:
        yield {"slice": "power mean", "positive rows": None, **means}
