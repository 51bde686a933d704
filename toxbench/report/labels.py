"""Tables with the scores of each label."""

from collections.abc import Mapping, Sequence

from toxbench.evaluation.definitions import HALF
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Leaderboard, Row, mean_known
from toxbench.records import CellRecord
from toxbench.report.tables import Record, records_table
from toxbench.store.cells import ProtocolRecord
from toxbench.util.many_labels import ShownLabels, select_labels
from toxbench.util.text import escape_line

LabelColumns = dict[str, Sequence[int | float | None]]  # title -> value of each label
_NO_POSITIVE = "A label without a positive test row has no score."
_PREVALENCE = (
    "Prevalence is the share of positive test rows. It is the average precision of a candidate "
    "that gives every row the same probability."
)


def label_table(leaderboard: Leaderboard) -> Table:
    """Return F1, average precision and prevalence of each label, for each candidate."""
    protocol, rows = leaderboard.protocol, leaderboard.rows
    columns: LabelColumns = {
        "positive test rows": [*protocol.tested_supports.values()],
        **{f"{row.title} F1": _label_f1(row, protocol) for row in rows},
        "prevalence": _prevalences(protocol),
        **{f"{row.title} average precision": row.label_average_precision for row in rows},
    }
    title = "F1 at threshold 0.5 and average precision of each label, mean over seeds"
    return _table(protocol, title, columns, (_NO_POSITIVE, _PREVALENCE))


def label_tables(leaderboard: Leaderboard) -> list[Table]:
    """Return the columns of `label_table` as two tables that fit a terminal."""
    protocol, rows = leaderboard.protocol, leaderboard.rows
    f1: LabelColumns = {
        "positive test rows": [*protocol.tested_supports.values()],
        **{row.title: _label_f1(row, protocol) for row in rows},
    }
    average_precision: LabelColumns = {
        "prevalence": _prevalences(protocol),
        **{row.title: row.label_average_precision for row in rows},
    }
    titles = (
        "F1 of each label at threshold 0.5, mean over seeds",
        "Average precision of each label, mean over seeds",
    )
    return [
        _table(protocol, titles[0], f1, (_NO_POSITIVE,)),
        _table(protocol, titles[1], average_precision, (_PREVALENCE,)),
    ]


def label_records(
    leaderboard: Leaderboard, records: Mapping[str, Sequence[CellRecord]]
) -> list[Record]:
    """Return the scores of each label by each row; ``records`` are the cells of each row."""
    return [
        {"candidate": row.name, "label": label, **mean_label_scores(records[row.name], number)}
        for row in leaderboard.rows
        for number, label in enumerate(leaderboard.protocol.labels)
    ]


def mean_label_scores(cells: Sequence[CellRecord], number: int) -> Record:
    """Return a label's scores at threshold 0.5, mean over cells whose fold has positive rows."""
    scores = [cell.per_label[HALF][number] for cell in cells]
    supports = {cell.key.fold: cell.per_label[HALF][number].support for cell in cells}
    names = ("precision", "recall", "f1", "average_precision")
    means = {name: mean_known(getattr(s, name) for s in scores if s.support) for name in names}
    return {"support": sum(supports.values()), **means}


def _table(
    protocol: ProtocolRecord, title: str, columns: LabelColumns, notes: tuple[str, ...]
) -> Table:
    labels = map(escape_line, protocol.labels)
    rows = zip(labels, *columns.values(), strict=True)
    headers = ("label", *columns)
    records = [dict(zip(headers, row, strict=True)) for row in rows]
    return records_table(title, records, notes, shown=tested_labels(protocol))


def tested_labels(protocol: ProtocolRecord) -> ShownLabels:
    """Return the labels that tables of test scores and pictures show."""
    tested = sum(len(fold.test) for fold in protocol.folds)
    return select_labels(list(protocol.tested_supports.values()), tested)


def _label_f1(row: Row, protocol: ProtocolRecord) -> list[float | None]:
    supports = protocol.tested_supports.values()
    return [f1 if support else None for f1, support in zip(row.label_f1, supports, strict=True)]


def _prevalences(protocol: ProtocolRecord) -> list[float]:
    """Return each label's share of positive test rows, mean over the folds that have one."""
    folds = list(zip(protocol.test_supports, protocol.folds, strict=True))
    return [
        mean_known(counts[label] / len(fold.test) or None for counts, fold in folds) or 0.0
        for label in protocol.labels
    ]
