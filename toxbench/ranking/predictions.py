"""Every tested row with what each candidate said of it; comments are not among it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.errors import StorageError
from toxbench.ranking.build import load_cells, of_row
from toxbench.ranking.pool import Cell
from toxbench.ranking.rows import Row, summarize_cells
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.rows import StoredRows
from toxbench.util.arrays import Targets


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """The test rows of all folds, fold after fold.

    Attributes:
        protocol: that split them off.
        rows: their numbers in the table, counted from 0, int64 ``[row]``.
        ids: of the rows.
        targets: 0/1, ``[row, label]``.
        candidates: name -> float32 ``[seed, row, label]``, of seeds that have every fold.
        left_out: names of the candidates that are not counted.
    """

    protocol: ProtocolRecord
    rows: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    targets: Targets
    candidates: Mapping[str, npt.NDArray[np.float32]]
    left_out: tuple[str, ...]


def load_predictions(store: CellStore) -> StoredPredictions:
    """Read what the candidates that count said: backbones, or baselines where there are no others.

    One that predicts the same for every row is left out, too, unless all do.

    Raises:
        StorageError: the folder is none of toxbench's, a file in it is damaged, or no candidate
            has a seed with every fold.
    """
    protocol, stored, cells = load_cells(store)
    board = summarize_cells(protocol, (record for record, _ in cells))
    if not board.rows:
        raise no_candidate(store)
    counted = _that_count(board.rows)
    left_out = tuple(row.name for row in board.rows if row not in counted)
    return predicted_of(counted, protocol, stored, cells, left_out)


def no_candidate(store: CellStore) -> StorageError:
    """Say that there is nothing to look at yet."""
    return StorageError(
        f"{store.folder} has no candidate with every fold yet; run the same command again"
    )


def predicted_of(
    counted: Sequence[Row],
    protocol: ProtocolRecord,
    stored: StoredRows,
    cells: Sequence[Cell],
    left_out: tuple[str, ...] = (),
) -> StoredPredictions:
    """Put together what some candidates of a leaderboard said of every tested row."""
    rows = np.concatenate([np.array(fold.test, dtype=np.int64) for fold in protocol.folds])
    return StoredPredictions(
        protocol=protocol,
        rows=rows,
        ids=tuple(stored.ids[row] for row in rows.tolist()),
        targets=stored.targets[rows],
        candidates={row.name: _stack_seeds(row, cells, len(protocol.folds)) for row in counted},
        left_out=left_out,
    )


def _that_count(rows: Sequence[Row]) -> list[Row]:
    backbones = [row for row in rows if row.kind == "backbone"] or list(rows)
    return [row for row in backbones if not row.constant] or backbones


def _stack_seeds(row: Row, cells: Sequence[Cell], folds: int) -> npt.NDArray[np.float32]:
    """Put a candidate's probabilities of test rows together: ``[seed, row, label]``."""
    by_seed: dict[int, list[npt.NDArray[np.float32]]] = {}
    for record, tensors in sorted(of_row(row, cells, folds), key=lambda cell: cell[0].key.fold):
        by_seed.setdefault(record.key.seed, []).append(tensors["test"])
    return np.stack([np.concatenate(by_seed[seed]) for seed in sorted(by_seed)])
