"""Builds the leaderboard of a stored protocol, with intervals, also rescored or of each label."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from toxbench.errors import SettingsError, did_you_mean
from toxbench.evaluation.bootstrap import (
    BootstrapScores,
    Uncertainty,
    bootstrap,
    measure_uncertainty,
)
from toxbench.evaluation.definitions import (
    GAP_COLUMNS,
    HALF,
    HEADLINES,
    METRICS,
    RANKING_METRIC,
    ROPE,
    RULES,
    TUNED_COLUMNS,
    VERDICT_COLUMNS,
)
from toxbench.evaluation.row_counts import VALUES
from toxbench.evaluation.significance import (
    Difference,
    Rules,
    Verdict,
    assign_tiers,
    best_shares,
    compare_all,
    rank_intervals,
)
from toxbench.evaluation.thresholds import POSITIVES_NEEDED
from toxbench.ranking.cells import (
    Cell,
    FoldPooler,
    PooledScores,
    ScoreNames,
    load_cells,
    load_failures,
    no_thresholds_error,
    score_again,
)
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
from toxbench.store.files import StoredRows
from toxbench.util.arrays import Floats
from toxbench.util.many_labels import select_labels
from toxbench.util.text import safe_quote

# Scores with intervals at the leaderboard's thresholds.
MAIN_SCORES = (
    *HEADLINES, "micro_precision", "micro_recall", "macro_f1", "micro_average_precision",
)  # fmt: skip
PooledRules = Mapping[str, PooledScores]  # thresholds rule -> scores
Draws = Mapping[tuple[str, str], BootstrapScores]  # row name, thresholds rule -> scores
_SCORES = ("micro_f1", "micro_average_precision")  # of one label: its F1 and average precision
LabelScores = dict[str, tuple[float, Mapping[str, Uncertainty]]]  # row name -> F1, uncertainties


def load_leaderboard(
    *stores: CellStore,
    rule: str = HALF,
    metric: str = RANKING_METRIC,
    quoted: tuple[QuotedRow, ...] | None = None,
    rope: float = ROPE,
) -> Leaderboard:
    """Build the leaderboard of a stored protocol, from the cells of one or several folders.

    ``quoted`` replaces the quoted rows that are stored in the folders; ``rope`` is as in
    `build_leaderboard`.

    Raises:
        StorageError: a folder holds no results, a file is damaged, or the folders hold results of
            different protocols.
    """
    failures = load_failures(*stores)
    if quoted is None:
        quoted = load_quoted(*stores)
    return build_leaderboard(*load_cells(*stores), rule, metric, failures, quoted, rope)


def build_leaderboard(
    protocol: ProtocolRecord,
    rows: StoredRows,
    cells: Sequence[Cell],
    rule: str = HALF,
    metric: str = RANKING_METRIC,
    failures: Sequence[FailureRecord] = (),
    quoted: tuple[QuotedRow, ...] = (),
    rope: float = ROPE,
) -> Leaderboard:
    """Rank candidates by their cells, with intervals, comparisons and tiers.

    ``rope`` is half the width of the region of practical equivalence.

    Raises:
        StorageError: a cell belongs to another protocol.
    """
    records = (record for record, _ in cells)
    board = summarize_cells(protocol, records, rule, metric, failures, quoted)
    if not board.rows:
        return board
    pooler = FoldPooler(protocol, rows)
    sampling = Sampling(pooler.group_count, pooler.single_rows, pooler.effective_units)
    complete, needed = complete_cells(cells, len(protocol.folds)), _needed_scores(rule)
    pooled = {row.name: pooler.pool(complete[row.key], needed) for row in board.rows}
    measured = rank_rows((_with_pooled_values(r, pooled[r.name], rule) for r in board.rows), metric)
    board = replace(board, rows=measured, sampling=sampling)
    return _with_uncertainty(board, pooled, rope) if sampling.has_intervals else board


def complete_cells(cells: Iterable[Cell], folds: int) -> dict[CandidateKey, list[Cell]]:
    """Return each candidate's cells of the seeds that have every fold."""
    candidates: dict[CandidateKey, list[Cell]] = defaultdict(list)
    for cell in cells:
        candidates[candidate_key(cell[0].key)].append(cell)
    for key, all_cells in candidates.items():
        seeds = complete_seeds((record for record, _ in all_cells), folds)
        candidates[key] = [cell for cell in all_cells if cell[0].key.seed in seeds]
    return candidates


def _needed_scores(rule: str) -> dict[str, ScoreNames]:
    """Return the scores to pool for each thresholds rule: the leaderboard's, and tuned ones."""
    test: dict[str, set[str]] = {rule: {*MAIN_SCORES}}
    gaps: dict[str, set[str]] = defaultdict(set)
    for name, tuned in TUNED_COLUMNS.values():
        test.setdefault(tuned, set()).add(name)
    for name, own_rule in GAP_COLUMNS.values():
        gaps[own_rule or rule].add(name)
        test.setdefault(own_rule or rule, set()).add(name)
    return {r: ScoreNames(tuple(sorted(test[r])), tuple(sorted(gaps[r]))) for r in test}


def _columns(rule: str) -> dict[str, tuple[str, str]]:
    """Return column -> thresholds rule and resampled score, for all columns with intervals."""
    return {
        **{name: (rule, name) for name in MAIN_SCORES},
        **{column: (tuned, name) for column, (name, tuned) in TUNED_COLUMNS.items()},
        **{column: (own or rule, f"{name}_gap") for column, (name, own) in GAP_COLUMNS.items()},
    }


def _with_pooled_values(row: Row, rules: PooledRules, rule: str) -> Row:
    """Replace scores by those of all folds of a seed together, if they are ratios of counts."""
    main = rules[rule]
    # A rule that cannot be pooled has no value: the mean of the cells is at other thresholds.
    values: dict[str, Statistic | None] = dict.fromkeys(TUNED_COLUMNS)
    values |= {name: _mean(main.test[name]) for name in MAIN_SCORES if name not in VALUES}
    values |= {f"train_{name}": _mean(main.train[name]) for name in HEADLINES}
    for column, (name, tuned) in TUNED_COLUMNS.items():
        if tuned in rules:
            values[column] = _mean(rules[tuned].test[name])
    for column, (name, own) in GAP_COLUMNS.items():
        if (own or rule) in rules:
            pooled = rules[own or rule]
            values[column] = _mean(pooled.train[name] - pooled.test[name])
    return replace(row, values={**row.values, **values})


def _with_uncertainty(
    board: Leaderboard, pooled: Mapping[str, PooledRules], rope: float
) -> Leaderboard:
    """Add intervals, verdicts, tiers and ranks."""
    draws = bootstrap(
        {(row.name, r): p.samples for row in board.rows for r, p in pooled[row.name].items()}
    )
    rows = tuple(
        replace(row, uncertainty=_uncertainty(row, draws, board.rule)) for row in board.rows
    )
    board = replace(board, rows=rows, verdicts=_verdicts(board, draws, rope))
    if board.metric not in HEADLINES or board.is_exploratory:
        return board
    return replace(board, rows=_with_tiers(_with_ranks(board, draws), board))


def _uncertainty(row: Row, draws: Draws, rule: str) -> dict[str, Uncertainty]:
    return {
        column: measure_uncertainty(draws[row.name, own_rule], score)
        for column, (own_rule, score) in _columns(rule).items()
        if (row.name, own_rule) in draws and row.mean(column) is not None
    }


def _verdicts(board: Leaderboard, draws: Draws, rope: float) -> tuple[Verdict, ...]:
    """Return the verdicts on all pairs, by metric."""
    constant = {row.name for row in board.rows if row.constant}
    rules = Rules(rope, {*board.untested}, constant)
    differences = {
        column: {(d.first, d.second): d for d in _compare(board, draws, column, rules)}
        for column in dict.fromkeys(c for group in VERDICT_COLUMNS.values() for c in group)
    }
    return tuple(
        Verdict(metric, tuple(differences[c][pair] for c in group if pair in differences[c]))
        for metric, group in VERDICT_COLUMNS.items()
        for pair in differences[metric]
    )


def _compare(board: Leaderboard, draws: Draws, column: str, rules: Rules) -> list[Difference]:
    """Compare the rows that have a value in a column."""
    rule, score = _columns(board.rule)[column]
    means = {row.name: mean for row in board.rows if (mean := row.mean(column)) is not None}
    resampled = {name: draws[name, rule] for name in means if (name, rule) in draws}
    return compare_all(resampled, means, score, column, rules)


def _with_tiers(rows: Sequence[Row], board: Leaderboard) -> tuple[Row, ...]:
    apart = {
        frozenset((v.main.first, v.main.second))
        for v in board.verdicts
        if v.metric == board.metric and v.is_apart
    }
    tiers = assign_tiers([row.name for row in rows], lambda *pair: frozenset(pair) in apart)
    return tuple(replace(row, tier=tiers[row.name]) for row in rows)


def _with_ranks(board: Leaderboard, draws: Draws) -> tuple[Row, ...]:
    """Add P(best) and the interval of the rank among the rows that are not constant."""
    varied = [row.name for row in board.rows if not row.constant]
    if not varied:
        return board.rows
    shares = best_shares(np.stack([draws[n, board.rule].scores(board.metric) for n in varied]))
    best = dict(zip(varied, shares.tolist(), strict=True))
    mains = (v.main for v in board.verdicts if v.metric == board.metric)
    ranks = rank_intervals(varied, (d for d in mains if {d.first, d.second} <= best.keys()))
    return tuple(
        replace(row, best=best.get(row.name), ranks=ranks.get(row.name)) for row in board.rows
    )


def _mean(scores: Floats) -> Statistic:
    return summarize_seeds(scores.tolist())


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


def rescore(
    store: CellStore, rule: str = HALF, without: Sequence[str] = (), metric: str = RANKING_METRIC
) -> Leaderboard:
    """Build a leaderboard of stored probabilities; nothing is written.

    The labels in ``without`` are excluded, and thresholds are chosen without them.

    Raises:
        SettingsError: the rule, a label or the metric does not exist, all labels are excluded, or
            a candidate has no positive validation rows to choose thresholds on.
        StorageError: as `load_cells`.
    """
    if rule not in RULES:
        raise SettingsError(f"thresholds {safe_quote(rule)}: choose {', '.join(RULES)}")
    if metric not in METRICS:
        hint = did_you_mean(metric, METRICS)
        raise SettingsError(f"--metric {safe_quote(metric)}: no such metric{hint}")
    failures = load_failures(store)
    protocol, rows, cells = load_cells(store)
    if without:
        columns = _remaining_columns(protocol, without)
        cells = [score_again(cell, protocol, rows, columns) for cell in cells]
        protocol, rows = _select_columns(protocol, rows, columns)
    without_rule = sorted({r.key.candidate for r, _ in cells if rule not in r.thresholds})
    if without_rule:
        raise no_thresholds_error(rule, without_rule)
    quoted = () if without else load_quoted(store)  # publications score all labels
    return build_leaderboard(protocol, rows, cells, rule, metric, failures, quoted)


def _remaining_columns(protocol: ProtocolRecord, without: Sequence[str]) -> list[int]:
    """Return the columns of the labels that are not excluded."""
    check_labels(protocol.labels, "--without", without)
    columns = [i for i, label in enumerate(protocol.labels) if label not in without]
    if not columns:
        raise SettingsError("--without: no label is left; name fewer labels")
    return columns


def check_labels(labels: Sequence[str], option: str, names: Sequence[str]) -> None:
    """Raise `SettingsError` for a name that is not a label."""
    for name in names:
        if name not in labels:
            hint = did_you_mean(name, labels)
            raise SettingsError(f"{option} {safe_quote(name)}: no such label{hint}")


def _select_columns(
    protocol: ProtocolRecord, rows: StoredRows, columns: list[int]
) -> tuple[ProtocolRecord, StoredRows]:
    """Return protocol and rows with some of the labels."""
    labels = tuple(protocol.labels[i] for i in columns)
    changes = {
        "labels": labels,
        "supports": {label: protocol.supports[label] for label in labels},
        "test_supports": tuple(
            {label: fold[label] for label in labels} for fold in protocol.test_supports
        ),
    }
    return protocol.model_copy(update=changes), replace(rows, codes=rows.codes[:, columns])
