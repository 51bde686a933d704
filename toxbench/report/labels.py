"""Tables with the scores of each label, and thresholds with a promised recall."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np

from toxbench.errors import SettingsError
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.thresholds import POSITIVES_NEEDED, positives_for_recall, recall_threshold
from toxbench.plugin.contracts import Table
from toxbench.ranking.build import check_labels, complete_cells
from toxbench.ranking.cells import Cell, load_cells
from toxbench.ranking.predictions import no_candidate_error, varied_candidates
from toxbench.ranking.rows import Leaderboard, Row, mean_known, summarize_cells
from toxbench.records import CellRecord, LabelScores
from toxbench.report.tables import Record, records_table
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.util.arrays import Codes, Probabilities, Targets, known_targets
from toxbench.util.many_labels import ShownLabels, select_labels
from toxbench.util.text import escape_line, format_value

_NO_POSITIVE = "A label without a positive test row has no score."
_TOO_FEW = f"(too few): fewer than {POSITIVES_NEEDED} positive test rows, too few for an interval."
_PREVALENCE = (
    "Prevalence is the share of positive test rows. It is the average precision of a candidate "
    "that gives every row the same probability."
)


def label_table(leaderboard: Leaderboard) -> Table:
    """Return F1, average precision and prevalence of each label, for each candidate."""
    rows = leaderboard.rows
    columns = [_positives(leaderboard)]
    columns += [_scores(leaderboard, row, "micro_f1", f"{row.title} F1") for row in rows]
    columns += [_prevalence(leaderboard)]
    columns += [
        _scores(leaderboard, row, "micro_average_precision", f"{row.title} average precision")
        for row in rows
    ]
    title = "F1 at threshold 0.5 and average precision of each label, mean over seeds"
    return _table(leaderboard, title, columns, (_NO_POSITIVE, _TOO_FEW, _PREVALENCE))


def label_tables(leaderboard: Leaderboard) -> list[Table]:
    """Return the columns of `label_table` as two tables that fit a terminal."""
    rows = leaderboard.rows
    f1 = [_scores(leaderboard, row, "micro_f1", row.title) for row in rows]
    precision = [_scores(leaderboard, row, "micro_average_precision", row.title) for row in rows]
    titles = (
        "F1 of each label at threshold 0.5, mean over seeds",
        "Average precision of each label, mean over seeds",
    )
    return [
        _table(leaderboard, titles[0], [_positives(leaderboard), *f1], (_NO_POSITIVE, _TOO_FEW)),
        _table(leaderboard, titles[1], [_prevalence(leaderboard), *precision],
               (_PREVALENCE, _TOO_FEW)),
    ]  # fmt: skip


@dataclass(frozen=True)
class _Column:
    """A column: its title, the text of each label, and numbers of each label for records."""

    title: str
    texts: Sequence[str]
    records: Sequence[Record]


def label_records(
    leaderboard: Leaderboard, records: Mapping[str, Sequence[CellRecord]]
) -> list[Record]:
    """Return the scores of each label by each row; ``records`` are the cells of each row."""
    return [
        {
            "candidate": row.name,
            "label": label,
            **mean_label_scores(records[row.name], number),
            **_interval_ends(row, number),
        }
        for row in leaderboard.rows
        for number, label in enumerate(leaderboard.protocol.labels)
    ]


def _interval_ends(row: Row, number: int) -> Record:
    """Return the intervals of a label's F1 and average precision; None: too few positive rows."""
    known = row.label_uncertainty[number] if row.label_uncertainty else {}
    columns = {"f1": "micro_f1", "average_precision": "micro_average_precision"}
    return {
        f"{column}_{end}": getattr(known.get(score), end, None)
        for column, score in columns.items()
        for end in ("low", "high")
    }


def mean_label_scores(cells: Sequence[CellRecord], number: int) -> Record:
    """Return a label's scores at threshold 0.5, mean over cells whose fold has positive rows."""
    scores = [cell.per_label[HALF][number] for cell in cells]
    supports = {cell.key.fold: cell.per_label[HALF][number].support for cell in cells}
    names = ("precision", "recall", "f1", "average_precision")
    means = {name: mean_known(getattr(s, name) for s in scores if s.support) for name in names}
    return {"support": sum(supports.values()), **means}


def _table(
    leaderboard: Leaderboard, title: str, columns: Sequence[_Column], notes: tuple[str, ...]
) -> Table:
    labels = list(map(escape_line, leaderboard.protocol.labels))
    rows = [*zip(labels, *(column.texts for column in columns), strict=True)]
    shown = tested_labels(leaderboard.protocol)
    numbers = zip(*(column.records for column in columns), strict=True)
    return Table(
        title=title,
        headers=("label", *(column.title for column in columns)),
        rows=tuple(rows[place] for place in shown.places),
        notes=(*notes, *shown.notes),
        records=tuple(
            {"label": label} | {k: v for record in records for k, v in record.items()}
            for label, records in zip(labels, numbers, strict=True)
        ),
    )


def tested_labels(protocol: ProtocolRecord) -> ShownLabels:
    """Return the labels that tables of test scores and pictures show."""
    tested = sum(len(fold.test) for fold in protocol.folds)
    return select_labels(list(protocol.tested_supports.values()), tested)


def _numbers(title: str, values: Sequence[int | float]) -> _Column:
    return _Column(title, [*map(format_value, values)], [{title: value} for value in values])


def _positives(leaderboard: Leaderboard) -> _Column:
    return _numbers("positive test rows", [*leaderboard.protocol.tested_supports.values()])


def _prevalence(leaderboard: Leaderboard) -> _Column:
    return _numbers("prevalence", _prevalences(leaderboard.protocol))


def _scores(leaderboard: Leaderboard, row: Row, score: str, title: str) -> _Column:
    """Return a candidate's score of each label, with its interval."""
    values = row.label_f1 if score == "micro_f1" else row.label_average_precision
    supports = [*leaderboard.protocol.tested_supports.values()]
    known = [value if support else None for value, support in zip(values, supports, strict=True)]
    intervals = [of_label.get(score) for of_label in row.label_uncertainty] or [None] * len(known)
    texts, records = [], []
    for value, support, interval in zip(known, supports, intervals, strict=True):
        text = format_value(value)
        record: Record = {title: value}
        if interval is not None:
            text += f" [{interval.low:.3f}, {interval.high:.3f}]"
            record |= {f"{title} low": interval.low, f"{title} high": interval.high}
        elif row.label_uncertainty:
            record |= {f"{title} low": None, f"{title} high": None}
        texts.append(f"{text} (too few)" if 0 < support < POSITIVES_NEEDED else text)
        records.append(record)
    return _Column(title, texts, records)


def _prevalences(protocol: ProtocolRecord) -> list[float]:
    """Return each label's share of positive test rows, mean over the folds that have one."""
    folds = list(zip(protocol.test_supports, protocol.folds, strict=True))
    return [
        mean_known(counts[label] / len(fold.test) or None for counts, fold in folds) or 0.0
        for label in protocol.labels
    ]


def recall_table(
    store: CellStore, recall: float, confidence: float, label: str | None = None
) -> Table:
    """Choose thresholds on the validation rows of each cell, for one label or all.

    Labels with fewer than `positives_for_recall` positive validation rows in a fold, and
    candidates with the same prediction for every row, are left out.

    Raises:
        SettingsError: no such label, or no label has enough positive validation rows.
        StorageError: no candidate has a seed with every fold; as `load_cells`.
    """
    protocol, rows, cells = load_cells(store)
    check_labels(protocol.labels, "--label", [label] if label is not None else [])
    labels = [i for i, name in enumerate(protocol.labels) if label in {None, name}]
    choose = partial(recall_threshold, recall=recall, confidence=confidence)
    needed = positives_for_recall(recall, confidence)
    columns = _columns_with_support(protocol, rows.targets[:, labels], needed)
    complete = complete_cells(cells, len(protocol.folds))
    board = summarize_cells(protocol, (record for record, _ in cells))
    if not board.rows:
        raise no_candidate_error(store)
    return records_table(
        f"Thresholds with a recall of {recall:g} with confidence {confidence:g}, mean over cells",
        [
            _label_record(row.name, complete[row.key], protocol, rows.codes, labels[i], choose)
            for row in varied_candidates(board.rows)
            for i in columns
        ],
        (
            f"Only labels with at least {needed} positive validation rows in each fold.",
            "The confidence is of one label and trained model, on rows like the validation rows.",
        ),
        keys=2,
    )


def _columns_with_support(protocol: ProtocolRecord, targets: Targets, needed: int) -> list[int]:
    """Return the columns with enough positive validation rows in each fold, at least one."""
    counts = [targets[list(fold.validation)].sum(axis=0, dtype=int) for fold in protocol.folds]
    fewest = np.min(counts, axis=0)
    if fewest.max() < needed:
        raise SettingsError(
            f"--recall: a label needs {needed} positive validation rows in each fold, and there "
            f"are {fewest.max()}; use a lower --recall or --confidence, or run with a larger "
            "--validation-size"
        )
    columns: list[int] = np.flatnonzero(fewest >= needed).tolist()
    return columns


def _label_record(
    name: str, cells: Sequence[Cell], protocol: ProtocolRecord, codes: Codes, column: int,
    choose: Callable[[Targets, Probabilities], float],
) -> Record:  # fmt: skip
    from toxbench.evaluation.metrics import score_labels  # imports scikit-learn

    label, scores = protocol.labels[column], list[LabelScores]()
    for record, tensors in cells:
        fold = protocol.folds[record.key.fold]
        validation, test = codes[list(fold.validation), column], codes[list(fold.test)]
        threshold = choose(known_targets(validation), tensors["validation"][:, column])
        one = [column]  # keeps the axis of labels
        scores += score_labels([label], test[:, one], tensors["test"][:, one], [threshold])
    half = [record.per_label[HALF][column] for record, _ in cells]
    return {
        "candidate": escape_line(name),
        "label": escape_line(label),
        "threshold": fmean(s.threshold for s in scores),
        "recall": mean_known(s.recall for s in scores if s.support),
        "precision": mean_known(s.precision for s in scores if s.support),
        "recall at 0.5": mean_known(s.recall for s in half if s.support),
        "precision at 0.5": mean_known(s.precision for s in half if s.support),
    }
