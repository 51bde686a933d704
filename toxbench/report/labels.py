"""Tables with the scores of each label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.thresholds import POSITIVES_NEEDED
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Leaderboard, Row, mean_known
from toxbench.records import CellRecord
from toxbench.report.tables import Record
from toxbench.store.cells import ProtocolRecord
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
