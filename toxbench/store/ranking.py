"""A stored protocol's leaderboard, with how sure its numbers are and who can be told apart."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from toxbench.evaluation.bootstrap import Draws, bootstrap
from toxbench.evaluation.comparison import Difference, compare_all, tiers
from toxbench.evaluation.counts import HEADLINES, SCORES, Floats
from toxbench.evaluation.thresholds import GLOBAL, HALF, PER_LABEL
from toxbench.evaluation.uncertainty import Uncertainty, measure_uncertainty
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.leaderboard import (
    Leaderboard,
    Row,
    Sampling,
    Statistic,
    build_leaderboard,
    rank,
    statistic,
)
from toxbench.store.pooled import Cell, Pool, Pooled
from toxbench.store.rows import StoredRows

SEEDS_NEEDED = 5  # fewer are exploratory: nobody is ranked by them
SUFFIXES = {HALF: "", GLOBAL: "_global", PER_LABEL: "_per_label"}
Pools = Mapping[str, Pooled]  # thresholds rule -> counts


def load_leaderboard(store: CellStore) -> Leaderboard:
    """Build the leaderboard of a stored protocol.

    Raises:
        StorageError: the folder is none of toxbench's, or a file in it is damaged.
    """
    return make_leaderboard(store.protocol(), store.rows(), list(store.cells()))


def make_leaderboard(protocol: ProtocolRecord, rows: StoredRows, cells: list[Cell]) -> Leaderboard:
    """Rank candidates by their cells, and say how sure that is.

    Args:
        protocol: that all cells were measured with.
        rows: of the protocol's table.
        cells: records with their probabilities, in any order.

    Raises:
        StorageError: a cell was measured with another protocol.
    """
    board = build_leaderboard(protocol, (record for record, _ in cells))
    if not board.rows:
        return board
    pool = Pool(protocol, rows)
    pooled = {row.name: pool.pool(_of_row(row, cells, len(protocol.folds))) for row in board.rows}
    evidence = {
        (name, rule): pools[rule].evidence
        for name, pools in pooled.items()
        for rule in (HALF, GLOBAL)
        if rule in pools
    }
    draws = bootstrap(evidence)
    ranked = sorted(
        (_with_uncertainty(row, pooled[row.name], draws) for row in board.rows), key=rank
    )
    differences = _compare(ranked, draws)
    return replace(
        board,
        rows=tuple(_with_tiers(ranked, differences)),
        differences=differences,
        sampling=Sampling(pool.group_count, pool.by_group, pool.has_groups),
    )


def _of_row(row: Row, cells: list[Cell], folds: int) -> list[Cell]:
    own = [c for c in cells if (c[0].key.candidate, c[0].key.digest) == (row.candidate, row.digest)]
    seeds = [record.key.seed for record, _ in own]
    return [cell for cell in own if seeds.count(cell[0].key.seed) == folds]


def _with_uncertainty(row: Row, pools: Pools, draws: Mapping[tuple[str, str], Draws]) -> Row:
    # A rule that cannot be pooled has no value: its cells' own mean would be of other thresholds.
    values: dict[str, Statistic | None] = {
        f"{n}{s}": None for n in HEADLINES for s in SUFFIXES.values()
    }
    sure: dict[str, Uncertainty] = {}
    for rule, pooled in pools.items():
        values |= {f"{n}{SUFFIXES[rule]}": _mean(pooled.test[n]) for n in HEADLINES}
        if (row.name, rule) in draws:
            sure |= _sure(pooled, draws[row.name, rule], SUFFIXES[rule])
    half = pools[HALF]
    values |= {name: _mean(scores) for name, scores in half.test.items()}
    for name in HEADLINES:
        values[f"train_{name}"] = _mean(half.train[name])
        values[f"{name}_gap"] = _mean(half.train[name] - half.test[name])
    known = {name: value for name, value in values.items() if name in row.values}
    return replace(row, values={**row.values, **known}, uncertainty=sure)


def _sure(pooled: Pooled, draws: Draws, suffix: str) -> dict[str, Uncertainty]:
    """Measure how sure the headline scores are, and, at threshold 0.5, the gaps."""
    sure = {}
    for name in HEADLINES:
        sure[f"{name}{suffix}"] = measure_uncertainty(
            draws.scores(name).clip(0, 1),  # few seeds may spread them further than they can be
            draws.rows_alone(name),
            pooled.test[name],
            pooled.folds[name],
            _without_groups(pooled, name),
        )
        if not suffix:
            sure[f"{name}_gap"] = measure_uncertainty(
                draws.scores(f"{name}_gap").clip(-1, 1),
                draws.rows_alone(f"{name}_gap"),
                pooled.train[name] - pooled.test[name],
            )
    return sure


def _without_groups(pooled: Pooled, name: str) -> Floats | None:
    """Return the mean score without each group, ``[group]``; None where groups are many."""
    if pooled.groups is None or pooled.groups.shape[1] < 2:
        return None
    sums = pooled.groups.astype(np.float64)
    rest = sums.sum(axis=1, keepdims=True) - sums  # [seed, group, count]
    return np.asarray(SCORES[name](rest).mean(axis=0))


def _compare(rows: list[Row], draws: Mapping[tuple[str, str], Draws]) -> tuple[Difference, ...]:
    own = {row.name: draws[row.name, HALF] for row in rows}
    found: list[Difference] = []
    for metric in HEADLINES:
        means = {row.name: value.mean for row in rows if (value := row.values[metric])}
        found += compare_all(own, means, metric)
    return tuple(found)


def _with_tiers(rows: list[Row], differences: tuple[Difference, ...]) -> list[Row]:
    """Number the tiers by micro-F1, where every backbone has seeds enough."""
    if any(row.kind == "backbone" and row.seeds < SEEDS_NEEDED for row in rows):
        return rows
    apart = {frozenset((d.one, d.other)): d.is_clear for d in differences if d.metric == "micro_f1"}
    numbers = tiers([row.name for row in rows], lambda one, other: apart[frozenset((one, other))])
    return [replace(row, tier=numbers[row.name]) for row in rows]


def _mean(by_seed: Floats) -> Statistic:
    return statistic(by_seed.tolist())
