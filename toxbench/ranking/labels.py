"""Adds the intervals of each label's scores to a leaderboard: each label is a table of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from toxbench.evaluation.bootstrap import Uncertainty, bootstrap, measure_uncertainty
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.thresholds import POSITIVES_NEEDED
from toxbench.ranking.build import complete_cells
from toxbench.ranking.pool import Cell, FoldPooler, PooledScores, ScoreNames
from toxbench.ranking.rows import Leaderboard, Row
from toxbench.store.rows import StoredRows
from toxbench.util.many_labels import select_labels

_SCORES = ("micro_f1", "micro_average_precision")  # of one label: its F1 and average precision
LabelScores = dict[str, tuple[float, Mapping[str, Uncertainty]]]  # row name -> F1, uncertainties


def with_label_intervals(
    board: Leaderboard, rows: StoredRows, cells: Sequence[Cell]
) -> Leaderboard:
    """Add intervals at threshold 0.5 for the labels with at least ten positive test rows.

    Their F1 becomes that of all folds of a seed together.
    """
    if board.sampling is None or not board.sampling.has_intervals:
        return board
    complete = complete_cells(cells, len(board.protocol.folds))
    ours = {row.name: complete[row.key] for row in board.rows if row.key in complete}
    supports = [*board.protocol.tested_supports.values()]
    tested = sum(len(fold.test) for fold in board.protocol.folds)
    shown = select_labels(supports, tested).places  # all, unless there are very many
    scores = [
        _label_scores(board, rows, ours, number)
        if number in shown and supports[number] >= POSITIVES_NEEDED
        else {}
        for number in range(len(supports))
    ]
    return replace(board, rows=tuple(_with_scores(row, scores) for row in board.rows))


def _label_scores(
    board: Leaderboard, rows: StoredRows, cells: Mapping[str, Sequence[Cell]], number: int
) -> LabelScores:
    pooler = FoldPooler(board.protocol, replace(rows, codes=rows.codes[:, [number]]))
    needed = {HALF: ScoreNames(_SCORES)}
    pooled: dict[str, PooledScores] = {
        name: pooler.pool([_one_label(cell, number) for cell in of_row], needed)[HALF]
        for name, of_row in cells.items()
    }
    draws = bootstrap({name: scores.samples for name, scores in pooled.items()})
    return {
        name: (
            float(pooled[name].test["micro_f1"].mean()),
            {score: measure_uncertainty(resampled, score) for score in _SCORES},
        )
        for name, resampled in draws.items()
    }


def _one_label(cell: Cell, number: int) -> Cell:
    record, tensors = cell
    columns = {part: values[:, [number]] for part, values in tensors.items()}
    return record.model_copy(update={"thresholds": {HALF: (0.5,)}}), columns


def _with_scores(row: Row, scores: Sequence[LabelScores]) -> Row:
    own = [of_label.get(row.name) for of_label in scores]
    return replace(
        row,
        label_f1=tuple(
            f1 if score is None else score[0] for f1, score in zip(row.label_f1, own, strict=True)
        ),
        label_uncertainty=tuple({} if score is None else score[1] for score in own),
    )
