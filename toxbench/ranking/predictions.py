"""Predictions of all tested rows by candidate, without the comments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from toxbench.errors import StorageError
from toxbench.evaluation.thresholds import predict
from toxbench.ranking.build import complete_cells
from toxbench.ranking.cells import Cell, FoldPooler, load_cells, no_thresholds_error
from toxbench.ranking.rows import Row, summarize_cells
from toxbench.records import Part
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.files import StoredRows
from toxbench.util.arrays import UNLABELLED, Codes, Targets, known_targets


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """Predictions of the test rows of all folds, in the order of the folds.

    Attributes:
        protocol: that defines the folds.
        rows: their numbers in the table, counted from 0, int64 ``[row]``.
        ids: of the rows.
        codes: 0, 1, or `UNLABELLED`, ``[row, label]``.
        candidates: name -> probabilities of the seeds that have every fold, float32 ``[seed, row,
            label]``.
        left_out: names of the candidates that are not included.
    """

    protocol: ProtocolRecord
    rows: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    codes: Codes
    candidates: Mapping[str, npt.NDArray[np.float32]]
    left_out: tuple[str, ...]

    @cached_property
    def targets(self) -> Targets:
        """0/1, ``[row, label]``; 0 where a row is not labelled."""
        return known_targets(self.codes)


SelectRows = Callable[[Sequence[Row]], list[Row]]


def varied_candidates(rows: Sequence[Row]) -> list[Row]:
    """Return the candidates that are not constant, or all if all are constant."""
    return [row for row in rows if not row.constant] or list(rows)


def varied_backbones(rows: Sequence[Row]) -> list[Row]:
    """Return the backbones, or the baselines without any, as `varied_candidates`."""
    return varied_candidates([row for row in rows if row.kind == "backbone"] or rows)


def load_predictions(store: CellStore, select: SelectRows = varied_backbones) -> StoredPredictions:
    """Read the predictions of the selected rows of the leaderboard.

    Raises:
        StorageError: the folder is not one of toxbench, a file in it is damaged, or no candidate
            has a seed with every fold.
    """
    protocol, stored, cells = load_cells(store)
    board = summarize_cells(protocol, (record for record, _ in cells))
    if not board.rows:
        raise no_candidate_error(store)
    selected = select(board.rows)
    left_out = tuple(row.name for row in board.rows if row not in selected)
    return stack_predictions(selected, protocol, stored, cells, left_out)


def no_candidate_error(store: CellStore) -> StorageError:
    """Return the error of a folder in which no candidate has a seed with every fold."""
    return StorageError(
        f"{store.folder} has no candidate with every fold yet; continue with the same toxbench run"
    )


def stack_predictions(
    candidates: Sequence[Row],
    protocol: ProtocolRecord,
    stored: StoredRows,
    cells: Sequence[Cell],
    left_out: tuple[str, ...] = (),
) -> StoredPredictions:
    """Return the predictions of candidates, from cells of these and others in any order."""
    complete = complete_cells(cells, len(protocol.folds))
    rows = np.concatenate([np.array(fold.test, dtype=np.int64) for fold in protocol.folds])
    return StoredPredictions(
        protocol=protocol,
        rows=rows,
        ids=tuple(stored.ids[row] for row in rows.tolist()),
        codes=stored.codes[rows],
        candidates={row.name: _stack_seeds(complete[row.key]) for row in candidates},
        left_out=left_out,
    )


def prediction_columns(
    candidate: Row,
    protocol: ProtocolRecord,
    stored: StoredRows,
    cells: Sequence[Cell],
    part: Part,
    rule: str,
) -> dict[str, npt.NDArray[Any]]:
    """Return one candidate's predictions of a part: an entry for each cell, row and label.

    Returns:
        name -> values: seed, fold, id, label, target, probability and predicted, at the thresholds
        of ``rule``; without entries that are not labelled.

    Raises:
        SettingsError: the candidate has no thresholds of this rule.
    """
    pooler, blocks = FoldPooler(protocol, stored), []
    for folds in _by_seed(complete_cells(cells, len(protocol.folds))[candidate.key]):
        for cell, thresholds in zip(folds, pooler.thresholds(folds), strict=True):
            if rule not in thresholds:
                raise no_thresholds_error(rule, [candidate.name])
            blocks.append(_cell_columns(cell, protocol, stored, part, thresholds[rule]))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _cell_columns(
    cell: Cell,
    protocol: ProtocolRecord,
    stored: StoredRows,
    part: Part,
    thresholds: Sequence[float],
) -> dict[str, npt.NDArray[Any]]:
    key, probabilities = cell[0].key, cell[1][part]
    rows = np.array(getattr(protocol.folds[key.fold], part), dtype=np.int64)
    ids = np.array([stored.ids[row] for row in rows.tolist()], dtype=object)
    columns = {
        "seed": np.full(probabilities.size, key.seed),
        "fold": np.full(probabilities.size, key.fold),
        "id": np.repeat(ids, len(protocol.labels)),
        "label": np.tile(np.array(protocol.labels, dtype=object), len(rows)),
        "target": stored.targets[rows].ravel(),
        "probability": probabilities.ravel(),
        "predicted": predict(probabilities, thresholds).ravel(),
    }
    labelled = stored.codes[rows].ravel() != UNLABELLED
    return {name: values[labelled] for name, values in columns.items()}


def _stack_seeds(cells: Sequence[Cell]) -> npt.NDArray[np.float32]:
    """Return a candidate's probabilities of all tested rows, ``[seed, row, label]``."""
    return np.stack([np.concatenate([cell[1]["test"] for cell in s]) for s in _by_seed(cells)])


def _by_seed(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells of each seed, in the order of the folds."""
    ordered = sorted(cells, key=lambda cell: (cell[0].key.seed, cell[0].key.fold))
    return [list(folds) for _, folds in groupby(ordered, key=lambda cell: cell[0].key.seed)]
