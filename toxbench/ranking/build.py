"""Builds the leaderboard of a stored protocol, with intervals, comparisons and tiers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from toxbench.evaluation.bootstrap import (
    BootstrapScores,
    SampleCounts,
    Uncertainty,
    bootstrap,
    measure_uncertainty,
)
from toxbench.evaluation.definitions import (
    HALF,
    HEADLINES,
    PER_LABEL,
    RANKING_METRIC,
    TUNED_COLUMNS,
)
from toxbench.evaluation.row_counts import SCORES
from toxbench.evaluation.significance import Difference, assign_tiers, compare_all
from toxbench.ranking.cells import load_cells, load_failures
from toxbench.ranking.pool import Cell, FoldPooler, PooledScores
from toxbench.ranking.quoted import QuotedRow, load_quoted
from toxbench.ranking.rows import (
    CandidateKey,
    Leaderboard,
    Row,
    Sampling,
    Statistic,
    candidate_key,
    complete_seeds,
    rank_rows,
    summarize_cells,
    summarize_seeds,
)
from toxbench.records import FailureRecord
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.rows import StoredRows
from toxbench.util.arrays import Floats

# Of the rules that are made for one metric.
_RULES_WITH_INTERVALS = {rule for _, rule in TUNED_COLUMNS.values() if rule != PER_LABEL}
PooledRules = Mapping[str, PooledScores]  # thresholds rule -> scores


def load_leaderboard(
    *stores: CellStore,
    rule: str = HALF,
    metric: str = RANKING_METRIC,
    quoted: tuple[QuotedRow, ...] | None = None,
) -> Leaderboard:
    """Build the leaderboard of a stored protocol, from the cells of one or several folders.

    ``quoted`` replaces the quoted rows that are stored in the folders.

    Raises:
        StorageError: a folder holds no results, a file is damaged, or the folders hold results of
            different protocols.
    """
    failures = load_failures(*stores)
    if quoted is None:
        quoted = load_quoted(*stores)
    return build_leaderboard(*load_cells(*stores), rule, metric, failures, quoted)


def build_leaderboard(
    protocol: ProtocolRecord,
    rows: StoredRows,
    cells: Sequence[Cell],
    rule: str = HALF,
    metric: str = RANKING_METRIC,
    failures: Sequence[FailureRecord] = (),
    quoted: tuple[QuotedRow, ...] = (),
) -> Leaderboard:
    """Rank candidates by their cells, with intervals, comparisons and tiers.

    Raises:
        StorageError: a cell belongs to another protocol.
    """
    records = (record for record, _ in cells)
    board = summarize_cells(protocol, records, rule, metric, failures, quoted)
    if not board.rows:
        return board
    pooler = FoldPooler(protocol, rows)
    complete = complete_cells(cells, len(protocol.folds))
    pooled = {row.name: pooler.pool(complete[row.key]) for row in board.rows}
    draws = bootstrap(_samples(pooled, rule))
    measured = [_with_uncertainty(row, pooled[row.name], draws, rule) for row in board.rows]
    ranked = rank_rows(measured, metric)
    differences = _compare(ranked, {row.name: draws[row.name, rule] for row in ranked})
    return replace(
        board,
        rows=ranked if board.is_exploratory else _with_tiers(ranked, differences, metric),
        differences=differences,
        sampling=Sampling(pooler.group_count, pooler.by_group, pooler.has_groups),
    )


def complete_cells(cells: Iterable[Cell], folds: int) -> dict[CandidateKey, list[Cell]]:
    """Return each candidate's cells of the seeds that have every fold."""
    candidates: dict[CandidateKey, list[Cell]] = defaultdict(list)
    for cell in cells:
        candidates[candidate_key(cell[0].key)].append(cell)
    for key, all_cells in candidates.items():
        seeds = complete_seeds((record for record, _ in all_cells), folds)
        candidates[key] = [cell for cell in all_cells if cell[0].key.seed in seeds]
    return candidates


def _samples(pooled: Mapping[str, PooledRules], rule: str) -> dict[tuple[str, str], SampleCounts]:
    """Return (row name, thresholds rule) -> counts to resample; gaps have one rule only."""
    samples = {(name, rule): rules[rule].samples for name, rules in pooled.items()}
    tuned_samples = {
        (name, tuned): SampleCounts(rules[tuned].samples.test)
        for name, rules in pooled.items()
        for tuned in _RULES_WITH_INTERVALS
        if tuned != rule and tuned in rules
    }
    return samples | tuned_samples


def _with_uncertainty(
    row: Row, rules: PooledRules, draws: Mapping[tuple[str, str], BootstrapScores], rule: str
) -> Row:
    """Replace the headline scores by those of all folds of a seed together, with uncertainty."""
    pooled, resampled = rules[rule], draws[row.name, rule]
    # A rule that cannot be pooled has no value: the mean of the cells is at other thresholds.
    values: dict[str, Statistic | None] = dict.fromkeys(TUNED_COLUMNS)
    values |= {name: _mean(scores) for name, scores in pooled.test.items()}
    values |= {f"train_{name}": _mean(pooled.train[name]) for name in HEADLINES}
    values |= {f"{name}_gap": _mean(pooled.train[name] - pooled.test[name]) for name in HEADLINES}
    uncertainty = {name: _score_uncertainty(pooled, resampled, name) for name in HEADLINES}
    uncertainty |= _gap_uncertainty(pooled, resampled)
    for column, (name, tuned) in TUNED_COLUMNS.items():
        if tuned in rules:
            values[column] = _mean(rules[tuned].test[name])
        if (row.name, tuned) in draws:
            scores = draws[row.name, tuned]
            uncertainty[column] = _score_uncertainty(rules[tuned], scores, name)
    return replace(row, values={**row.values, **values}, uncertainty=uncertainty)


def _score_uncertainty(pooled: PooledScores, draws: BootstrapScores, name: str) -> Uncertainty:
    return measure_uncertainty(
        draws.scores(name).clip(0, 1),  # draws of few seeds may exceed the range of a score
        draws.fixed_seed_scores(name),
        pooled.test[name],
        pooled.folds[name],
        _scores_without_group(pooled, name),
    )


def _gap_uncertainty(pooled: PooledScores, draws: BootstrapScores) -> dict[str, Uncertainty]:
    return {
        gap: measure_uncertainty(
            draws.scores(gap).clip(-1, 1),
            draws.fixed_seed_scores(gap),
            pooled.train[name] - pooled.test[name],
        )
        for name in HEADLINES
        if (gap := f"{name}_gap")
    }


def _scores_without_group(pooled: PooledScores, name: str) -> Floats | None:
    """Return the mean score without each group, ``[group]``; None if groups are resampled."""
    if pooled.groups is None or pooled.groups.shape[1] < 2:
        return None
    sums = pooled.groups.astype(np.float64)
    remaining = sums.sum(axis=1, keepdims=True) - sums  # [seed, group, count]
    return np.asarray(SCORES[name](remaining).mean(axis=0))


def _compare(rows: Sequence[Row], draws: Mapping[str, BootstrapScores]) -> tuple[Difference, ...]:
    differences: list[Difference] = []
    for metric in HEADLINES:
        means = {row.name: mean for row in rows if (mean := row.mean(metric)) is not None}
        differences += compare_all(draws, means, metric)
    return tuple(differences)


def _with_tiers(
    rows: tuple[Row, ...], differences: Sequence[Difference], metric: str
) -> tuple[Row, ...]:
    """Add tiers if the metric can be resampled."""
    if metric not in HEADLINES:
        return rows
    clear = {
        frozenset((d.first, d.second)) for d in differences if d.metric == metric and d.is_clear
    }
    tiers = assign_tiers([row.name for row in rows], lambda *pair: frozenset(pair) in clear)
    return tuple(replace(row, tier=tiers[row.name]) for row in rows)


def _mean(scores: Floats) -> Statistic:
    return summarize_seeds(scores.tolist())
