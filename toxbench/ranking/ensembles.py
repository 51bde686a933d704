"""Adds averages of stored probabilities to a leaderboard; nothing is trained or stored.

An average becomes cells like those of a trained candidate, one for each fold, with one seed. All
later code treats them alike: thresholds, metrics, intervals, tests and tiers.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from toxbench.evaluation.definitions import HALF, RANKING_METRIC, ROPE
from toxbench.evaluation.ensembles import (
    EnsembleChoice,
    average_probabilities,
    choose_members,
    seeds_average_name,
)
from toxbench.ranking.build import build_leaderboard, complete_cells
from toxbench.ranking.cells import Cell, load_cells, load_failures, score_again
from toxbench.ranking.quoted import QuotedRow, load_quoted
from toxbench.ranking.rows import Leaderboard, summarize_cells
from toxbench.records import PARTS, CellKey, CellRecord, Cost, WeightsRecord
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.files import StoredRows


def load_ensemble_leaderboard(
    *stores: CellStore,
    rule: str = HALF,
    metric: str = RANKING_METRIC,
    quoted: tuple[QuotedRow, ...] | None = None,
    rope: float = ROPE,
) -> Leaderboard:
    """Build the leaderboard of stored cells with their averages; otherwise as `load_leaderboard`.

    Raises:
        StorageError: as `load_leaderboard`.
    """
    failures = load_failures(*stores)
    protocol, rows, cells = load_cells(*stores)
    averages, choice = ensemble_cells(protocol, rows, cells)
    if quoted is None:
        quoted = load_quoted(*stores)
    cells = [*cells, *averages]
    board = build_leaderboard(protocol, rows, cells, rule, metric, failures, quoted, rope)
    return replace(board, ensemble_choice=choice)


def load_board_cells(
    store: CellStore, board: Leaderboard
) -> tuple[ProtocolRecord, StoredRows, list[Cell]]:
    """Read the cells that a leaderboard summarizes, the averages included if it has any.

    Raises:
        StorageError: as `load_cells`.
    """
    protocol, rows, cells = load_cells(store)
    if board.ensemble_choice is not None:
        cells = [*cells, *ensemble_cells(protocol, rows, cells)[0]]
    return protocol, rows, cells


def ensemble_cells(
    protocol: ProtocolRecord, rows: StoredRows, cells: Sequence[Cell]
) -> tuple[list[Cell], EnsembleChoice]:
    """Return the cells of all averages, and how the members over candidates were chosen.

    Each candidate with several complete seeds has an average over its seeds. One average is over
    candidates, each with the mean of its seeds; validation rows alone choose its members.
    """
    complete = complete_cells(cells, len(protocol.folds))
    board = summarize_cells(protocol, (record for record, _ in cells))
    averages: list[Cell] = []
    members: dict[str, list[Cell]] = {}  # candidate -> one cell for each fold
    for row in sorted(board.rows, key=lambda row: row.name):
        members[row.name] = sorted(complete[row.key], key=lambda cell: cell[0].key.fold)
        if row.seeds > 1:
            name = seeds_average_name(row.name, row.seeds)
            members[row.name] = _average_cells(name, members[row.name], protocol, rows)
            averages += members[row.name]
    choice = _choose_members(protocol, rows, members)
    if choice.name is not None:
        chosen = [cell for name, _ in choice.steps for cell in members[name]]
        averages += _average_cells(choice.name, chosen, protocol, rows)
    return averages, choice


def _choose_members(
    protocol: ProtocolRecord, rows: StoredRows, members: dict[str, list[Cell]]
) -> EnsembleChoice:
    validation = np.concatenate([np.array(fold.validation, int) for fold in protocol.folds])
    candidates = {
        name: np.concatenate([tensors["validation"] for _, tensors in cells])
        for name, cells in members.items()
        if not all(map(_is_constant, cells))
    }
    return choose_members(rows.targets[validation], candidates)


def _is_constant(cell: Cell) -> bool:
    """Return whether all validation rows have the same probabilities."""
    probabilities = cell[1]["validation"]
    return not (probabilities != probabilities[:1]).any()


def _average_cells(
    name: str, cells: Sequence[Cell], protocol: ProtocolRecord, rows: StoredRows
) -> list[Cell]:
    """Return the average of the cells of each fold, scored as a run scores a cell."""
    columns, averages = range(len(protocol.labels)), []
    for fold in range(len(protocol.folds)):
        members = sorted((c for c in cells if c[0].key.fold == fold), key=_seed_order)
        average = {part: average_probabilities([t[part] for _, t in members]) for part in PARTS}
        record = _average_record(name, [record for record, _ in members])
        averages.append(score_again((record, average), protocol, rows, columns))
    return averages


def _seed_order(cell: Cell) -> tuple[str, str, int]:
    return cell[0].key.candidate, cell[0].key.digest, cell[0].key.seed


def _average_record(name: str, members: Sequence[CellRecord]) -> CellRecord:
    """Return a record without scores; its costs and parameters are those of all members."""
    first, costs = members[0], [member.cost for member in members]
    keys = (member.key for member in members)
    identity = "\n".join(f"{key.candidate}-{key.digest}-{key.seed}" for key in keys)
    digest = hashlib.sha256(identity.encode("utf-8")).hexdigest()[:12]  # the same for all folds
    return CellRecord(
        key=CellKey(candidate=name, digest=digest, fold=first.key.fold),
        kind="ensemble",
        stochastic=False,  # the average over all seeds is one value
        distribution=", ".join(sorted({member.distribution for member in members})),
        fingerprint=first.fingerprint,
        weights=_join_weights(members, digest),
        parameters=_known(sum, [member.parameters for member in members]),
        settings=None,
        environment=first.environment,
        cost=Cost(
            train_seconds=sum(cost.train_seconds for cost in costs),
            evaluation_seconds=sum(cost.evaluation_seconds for cost in costs),
            comments_per_second=None,
            peak_memory_bytes=_known(max, [cost.peak_memory_bytes for cost in costs]),
        ),
        epochs=(),
        truncated_share=None,
        thresholds={},
        versions={},
        metrics={},
        per_label={},
        has_constant_predictions=False,
    )


def _join_weights(members: Sequence[CellRecord], digest: str) -> WeightsRecord | None:
    """Return the initial weights of all members; a stand-in if one of them is a stand-in."""
    weights = list(dict.fromkeys(m.weights for m in members if m.weights is not None))
    if len(weights) < 2:
        return weights[0] if weights else None
    stand_ins = [record for record in weights if record.source == "stand-in"]
    label = ", ".join(dict.fromkeys(record.label for record in weights))
    return WeightsRecord(source=(stand_ins or weights)[0].source, label=label, identity=digest)


def _known(combine: Callable[[Sequence[int]], int], values: Sequence[int | None]) -> int | None:
    """Combine the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return combine(known) if known else None
