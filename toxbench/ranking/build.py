"""A stored protocol's leaderboard, with how sure its numbers are and who can be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toxbench.errors import StorageError
from toxbench.evaluation.bootstrap import (
    BootstrapScores,
    SampleCounts,
    Uncertainty,
    bootstrap,
    measure_uncertainty,
)
from toxbench.evaluation.definitions import GLOBAL, HALF, PER_LABEL
from toxbench.evaluation.row_counts import HEADLINES, SCORES
from toxbench.evaluation.significance import Difference, compare_all, tiers
from toxbench.ranking.cache import keep, made_of, read_kept
from toxbench.ranking.pool import Cell, FoldPooler, PooledScores
from toxbench.ranking.rows import (
    Leaderboard,
    Row,
    Sampling,
    Statistic,
    ranked,
    statistic,
    summarize_cells,
)
from toxbench.records import PARTS, CellRecord, FailureRecord, Part
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.rows import StoredRows
from toxbench.util.arrays import Floats


def diff_protocols(one: ProtocolRecord, other: ProtocolRecord) -> list[str]:
    """Name what makes two protocols different, in words."""
    found: list[str] = []
    if one.data_fingerprint != other.data_fingerprint:
        tables = (f"{p.name} with {p.rows} rows" for p in (one, other))
        found.append(f"the table ({' and '.join(tables)})")
    if one.labels != other.labels:
        odd = sorted(set(one.labels) ^ set(other.labels))
        found.append(f"the labels ({', '.join(odd) or 'their order'})")
    if one.folds != other.folds:
        found.append(f"the split ({' and '.join(_split(p) for p in (one, other))})")
    return found


def check_same_protocol(one: ProtocolRecord, other: ProtocolRecord, folder: Path) -> None:
    """Refuse results that another protocol measured.

    Raises:
        StorageError: naming what differs.
    """
    if one.fingerprint != other.fingerprint:
        differing = ", ".join(diff_protocols(one, other)) or "the fingerprint"
        raise StorageError(
            f"{folder} was measured with another protocol: different are {differing}; scores of "
            "two yardsticks are not compared"
        )


def check_rows_match(protocol: ProtocolRecord, rows: StoredRows, folder: Path) -> None:
    """Refuse a protocol whose table is another than the stored rows are of.

    Raises:
        StorageError: what to do.
    """
    shape = (protocol.rows, len(protocol.labels))
    fits = rows.targets.shape == shape and len(rows.ids) == len(rows.groups) == protocol.rows
    parts = (getattr(fold, part) for fold in protocol.folds for part in PARTS)
    in_table = all(min(rows) >= 0 and max(rows) < protocol.rows for rows in parts if rows)
    names = [set(protocol.supports), *map(set, protocol.test_supports)]
    named = all(own == set(protocol.labels) for own in names)
    if not (fits and in_table and named and len(protocol.test_supports) == len(protocol.folds)):
        raise StorageError(
            f"{folder}: protocol.json and rows.safetensors are not of the same table; the same "
            "toxbench run again mends them, without training"
        )


def check_cell_shape(
    protocol: ProtocolRecord, record: CellRecord, tensors: Mapping[Part, npt.NDArray[np.float32]]
) -> None:
    """Refuse a cell of this protocol whose probabilities are of other rows or labels.

    Raises:
        StorageError: what to do.
    """
    if record.fingerprint != protocol.fingerprint:
        return  # is told in other words
    folds = protocol.folds
    fold = folds[record.key.fold] if 0 <= record.key.fold < len(folds) else None
    fits = fold is not None and all(
        tensors[part].shape == (len(getattr(fold, part)), len(protocol.labels)) for part in PARTS
    )
    if not fits:
        raise StorageError(
            f"cell {record.key.stem} has other rows or labels than its protocol; remove its file "
            "and run the same command again"
        )


def _split(protocol: ProtocolRecord) -> str:
    tested = sum(len(fold.test) for fold in protocol.folds)
    folds = len(protocol.folds)
    return f"{folds} folds, {tested} test rows" if folds > 1 else f"{tested} test rows"


SEEDS_NEEDED = 5  # fewer are exploratory: nobody is ranked by them
SUFFIXES = {GLOBAL: "_global", PER_LABEL: "_per_label"}
Pools = Mapping[str, PooledScores]  # thresholds rule -> counts


def load_leaderboard(*stores: CellStore, rule: str = HALF, metric: str = "micro_f1") -> Leaderboard:
    """Return the leaderboard of a stored protocol, from the cells of one or several folders.

    That of one folder is computed once and then cached (`toxbench.ranking.cache`).

    Args:
        stores: of one protocol.
        rule: of the thresholds.
        metric: to rank by.

    Raises:
        StorageError: a folder is none of toxbench's, a file in it is damaged, or the folders hold
            results of different protocols.
    """
    if len(stores) > 1:  # no folder's own
        return _computed(stores, rule, metric)
    digest = made_of(stores[0], rule, metric)
    kept = read_kept(stores[0].folder, digest) if digest else None
    if kept is not None:
        return kept
    leaderboard = _computed(stores, rule, metric)
    # A run may have stored a cell in between: then it is unknown which cells these are.
    if digest is not None and made_of(stores[0], rule, metric) == digest:
        keep(stores[0].folder, digest, leaderboard)
    return leaderboard


def _computed(stores: Sequence[CellStore], rule: str, metric: str) -> Leaderboard:
    failures = load_failures(*stores)
    return build_leaderboard(*load_cells(*stores), rule, metric, failures)


def load_failures(*stores: CellStore) -> list[FailureRecord]:
    """Read which cells failed; a cell that several folders hold counts once.

    To be read before the cells: a run removes a failure once the cell is stored.

    Raises:
        StorageError: a file is damaged, or a newer toxbench wrote it.
    """
    return list({r.key: r for store in stores for r in store.failures.records()}.values())


def load_cells(*stores: CellStore) -> tuple[ProtocolRecord, StoredRows, list[Cell]]:
    """Read what a leaderboard is made of; a cell that several folders hold counts once.

    Raises:
        StorageError: as `load_leaderboard`.
    """
    protocol = stores[0].protocol()
    for other in stores[1:]:
        check_same_protocol(protocol, other.protocol(), other.folder)
    rows = stores[0].rows()
    check_rows_match(protocol, rows, stores[0].folder)
    cells = {record.key: (record, tensors) for s in stores for record, tensors in s.cells()}
    for record, tensors in cells.values():
        check_cell_shape(protocol, record, tensors)
    return protocol, rows, list(cells.values())


def build_leaderboard(
    protocol: ProtocolRecord,
    rows: StoredRows,
    cells: Sequence[Cell],
    rule: str = HALF,
    metric: str = "micro_f1",
    failures: Sequence[FailureRecord] = (),
) -> Leaderboard:
    """Rank candidates by their cells, and say how sure that is.

    Args:
        protocol: that all cells were measured with.
        rows: of the protocol's table.
        cells: records with their probabilities, in any order.
        rule: of the thresholds.
        metric: to rank by.
        failures: of cells, in any order.

    Raises:
        StorageError: a cell was measured with another protocol.
    """
    board = summarize_cells(protocol, (record for record, _ in cells), rule, metric, failures)
    if not board.rows:
        return board
    pool = FoldPooler(protocol, rows)
    # Each candidate's own first: every row would have to look through all cells otherwise.
    own: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        own.setdefault((cell[0].key.candidate, cell[0].key.digest), []).append(cell)
    folds = len(protocol.folds)
    pooled = {
        row.name: pool.pool(of_row(row, own[row.candidate, row.digest], folds))
        for row in board.rows
    }
    draws = bootstrap(_evidence(pooled, rule))
    at_rule = {name: own for (name, by), own in draws.items() if by == rule}
    sure = [_with_uncertainty(row, pooled[row.name], draws, rule) for row in board.rows]
    best_first = ranked(sure, metric)
    differences = _compare(best_first, at_rule)
    return replace(
        board,
        rows=_with_tiers(best_first, differences, metric),
        differences=differences,
        sampling=Sampling(pool.group_count, pool.by_group, pool.has_groups),
    )


def _evidence(pooled: Mapping[str, Pools], rule: str) -> dict[tuple[str, str], SampleCounts]:
    """Return candidate and thresholds rule -> what is resampled; gaps are shown at one rule."""
    at_rule = {(name, rule): pools[rule].evidence for name, pools in pooled.items()}
    others = {
        (name, GLOBAL): SampleCounts(pools[GLOBAL].evidence.test)
        for name, pools in pooled.items()
        if rule != GLOBAL and GLOBAL in pools
    }
    return at_rule | others


def of_row(row: Row, cells: Sequence[Cell], folds: int) -> list[Cell]:
    """Return a candidate's cells of the seeds that have every fold."""
    own = [c for c in cells if (c[0].key.candidate, c[0].key.digest) == (row.candidate, row.digest)]
    seeds = [record.key.seed for record, _ in own]
    return [cell for cell in own if seeds.count(cell[0].key.seed) == folds]


def _with_uncertainty(
    row: Row, pools: Pools, draws: Mapping[tuple[str, str], BootstrapScores], rule: str
) -> Row:
    """Take the headline scores from all folds of a seed together, and say how sure they are."""
    own = pools[rule]
    # A rule that cannot be pooled has no value: its cells' own mean would be of other thresholds.
    values: dict[str, Statistic | None] = {
        f"{name}{suffix}": None for name in HEADLINES for suffix in SUFFIXES.values()
    }
    values |= {name: _mean(scores) for name, scores in own.test.items()}
    values |= {f"train_{name}": _mean(own.train[name]) for name in HEADLINES}
    values |= {f"{name}_gap": _mean(own.train[name] - own.test[name]) for name in HEADLINES}
    sure = _sure(own, draws[row.name, rule]) | _sure_gaps(own, draws[row.name, rule])
    for other, suffix in SUFFIXES.items():
        if other in pools:
            values |= {f"{name}{suffix}": _mean(pools[other].test[name]) for name in HEADLINES}
        if (row.name, other) in draws:
            sure |= _sure(pools[other], draws[row.name, other], suffix)
    return replace(row, values={**row.values, **values}, uncertainty=sure)


def _sure(pooled: PooledScores, draws: BootstrapScores, suffix: str = "") -> dict[str, Uncertainty]:
    return {
        f"{name}{suffix}": measure_uncertainty(
            draws.scores(name).clip(0, 1),  # few seeds may spread them further than they can be
            draws.rows_alone(name),
            pooled.test[name],
            pooled.folds[name],
            _without_groups(pooled, name),
        )
        for name in HEADLINES
    }


def _sure_gaps(pooled: PooledScores, draws: BootstrapScores) -> dict[str, Uncertainty]:
    return {
        gap: measure_uncertainty(
            draws.scores(gap).clip(-1, 1),
            draws.rows_alone(gap),
            pooled.train[name] - pooled.test[name],
        )
        for name in HEADLINES
        if (gap := f"{name}_gap")
    }


def _without_groups(pooled: PooledScores, name: str) -> Floats | None:
    """Return the mean score without each group, ``[group]``; None where groups are many."""
    if pooled.groups is None or pooled.groups.shape[1] < 2:
        return None
    sums = pooled.groups.astype(np.float64)
    rest = sums.sum(axis=1, keepdims=True) - sums  # [seed, group, count]
    return np.asarray(SCORES[name](rest).mean(axis=0))


def _compare(rows: Sequence[Row], draws: Mapping[str, BootstrapScores]) -> tuple[Difference, ...]:
    own = {row.name: draws[row.name] for row in rows}
    found: list[Difference] = []
    for metric in HEADLINES:
        means = {row.name: value.mean for row in rows if (value := row.values[metric])}
        found += compare_all(own, means, metric)
    return tuple(found)


def _with_tiers(
    rows: tuple[Row, ...], differences: Sequence[Difference], metric: str
) -> tuple[Row, ...]:
    """Number the tiers, where every backbone has seeds enough and the metric can be resampled."""
    exploratory = any(row.kind == "backbone" and row.seeds < SEEDS_NEEDED for row in rows)
    if exploratory or metric not in HEADLINES:
        return rows
    apart = {frozenset((d.one, d.other)): d.is_clear for d in differences if d.metric == metric}
    numbers = tiers([row.name for row in rows], lambda one, other: apart[frozenset((one, other))])
    return tuple(replace(row, tier=numbers[row.name]) for row in rows)


def _mean(by_seed: Floats) -> Statistic:
    return statistic(by_seed.tolist())
