"""A leaderboard as tables: what to show, rounded and worded; formats only write it down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toxbench.errors import SettingsError
from toxbench.evaluation.row_counts import HEADLINES
from toxbench.evaluation.significance import Difference
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Leaderboard, Row, Statistic
from toxbench.report.notes import conclusions, limitations, notes, scored_labels, title
from toxbench.report.verdicts import comparison_table, conclusion, reversed_difference
from toxbench.util.text import escape_line, format_millions

Record = dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Column:
    """A title and how to write a row's cell below it."""

    title: str
    text: Callable[[Row], str]


def leaderboard_table(leaderboard: Leaderboard) -> Table:
    """Return the whole leaderboard as one table with notes."""
    columns = (
        *_headline_columns(leaderboard),
        *_score_columns(leaderboard),
        *_GAP_COLUMNS,
        *_error_columns(leaderboard),
        *_cost_columns(leaderboard),
    )
    said = (*conclusions(leaderboard), *notes(leaderboard))
    return _table(leaderboard, title(leaderboard), columns, said)


def terminal_tables(leaderboard: Leaderboard) -> list[Table]:
    """Return the same in tables that fit a terminal, and what can be concluded below the first."""
    said = conclusions(leaderboard)
    errors = _error_columns(leaderboard)
    tables = [
        _table(leaderboard, title(leaderboard), _headline_columns(leaderboard), said),
        _table(leaderboard, "More scores", (_NAME, *_score_columns(leaderboard)), ()),
        _table(leaderboard, "Overfitting (train minus test)", (_NAME, *_GAP_COLUMNS), ()),
        _table(leaderboard, "Where the uncertainty comes from (standard errors)",
               (_NAME, *errors), ()),
        _table(leaderboard, "Cost and origin", (_NAME, *_cost_columns(leaderboard)),
               notes(leaderboard)),
    ]  # fmt: skip
    return [table for table in tables if len(table.headers) > 1]


def records(leaderboard: Leaderboard) -> tuple[Record, ...]:
    """Return the rows as unrounded values, one column for each mean, deviation and error."""
    return tuple(_record(leaderboard, rank, row) for rank, row in enumerate(leaderboard.rows, 1))


def _record(leaderboard: Leaderboard, rank: int, row: Row) -> Record:
    record: Record = {
        "rank": rank,
        "tier": row.tier,
        "candidate": row.candidate,
        "kind": row.kind,
        "tuned": row.tuning is not None,
        "settings": row.difference,
        "weights": escape_line(row.weights),
        "stand_in": row.stand_in,
        "synthetic": leaderboard.protocol.synthetic,
        "thresholds": leaderboard.rule,
        "parameters": row.parameters,
        "cells": row.cells,
        "failed": row.failed,
        "seeds": row.seeds,
        "scored_labels": scored_labels(leaderboard),
        "constant": row.constant,
    }
    for name, statistic in row.values.items():
        record[name] = statistic.mean if statistic else None
        record[f"{name}_sd"] = statistic.deviation if statistic else None
    for name, sure in row.uncertainty.items():
        record |= {f"{name}_low": sure.low, f"{name}_high": sure.high}
        record |= {f"{name}_error_rows": sure.rows, f"{name}_error_seeds": sure.seeds}
        record |= {f"{name}_error_folds": sure.folds}
        low, high = sure.without_a_group or (None, None)
        record |= {f"{name}_without_a_group_low": low, f"{name}_without_a_group_high": high}
    return record


def _table(
    leaderboard: Leaderboard, title: str, columns: Sequence[Column], notes: Sequence[str]
) -> Table:
    return Table(
        title=escape_line(title),
        headers=tuple(column.title for column in columns),
        rows=tuple(
            tuple(escape_line(column.text(row)) for column in columns) for row in leaderboard.rows
        ),
        notes=tuple(map(escape_line, notes)),
        records=records(leaderboard),
        keys=1 + columns.index(_NAME),
        best=_best(leaderboard),
    )


def _best(leaderboard: Leaderboard) -> tuple[int, ...]:
    """Return the rows of the first tier; where there are no tiers, the highest score."""
    first = [number for number, row in enumerate(leaderboard.rows) if row.tier == 1]
    return tuple(first or [0] if leaderboard.rows else [])


def _headline_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    metric = leaderboard.metric
    columns = (
        _NAME,
        *([] if metric in HEADLINES else [Column(metric, _score(metric))]),
        Column("micro-F1", _with_interval("micro_f1")),
        Column("subset accuracy", _with_interval("subset_accuracy")),
        Column("micro-F1, global thr.", _with_interval("micro_f1_global")),
        Column("accuracy, global thr.", _with_interval("subset_accuracy_global")),
    )
    tiers = any(row.tier is not None for row in leaderboard.rows)
    return (Column("tier", lambda row: str(row.tier)), *columns) if tiers else columns


def _score_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    macro = f"macro-F1 ({scored_labels(leaderboard)} of {len(leaderboard.protocol.labels)} labels)"
    return (
        Column(macro, _score("macro_f1")),
        Column("precision", _score("micro_precision")),
        Column("recall", _score("micro_recall")),
        Column("average precision", _score("micro_average_precision")),
        Column("micro-F1, per-label thr.", _score("micro_f1_per_label")),
    )


def _error_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    """Return where the uncertainty comes from; nothing where it was not measured."""
    known = [sure for row in leaderboard.rows for sure in row.uncertainty.values()]
    columns: list[Column] = []
    for name, short in (("micro_f1", "F1"), ("subset_accuracy", "accuracy")):
        if known:
            columns.append(Column(f"{short} from rows", _error(name, "rows")))
        if any(sure.seeds is not None for sure in known):
            columns.append(Column(f"{short} from seeds", _error(name, "seeds")))
        if any(sure.folds is not None for sure in known):
            columns.append(Column(f"{short} from folds", _error(name, "folds")))
        if any(sure.without_a_group is not None for sure in known):
            columns.append(Column(f"{short} without a group", _without_a_group(name)))
    return tuple(columns)


def _cost_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    """Return what rows cost; how many cells failed where any did."""
    failed = Column("failed", lambda row: str(row.failed))
    return (*_COST_COLUMNS, *([failed] if any(row.failed for row in leaderboard.rows) else []))


def _with_interval(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        statistic, sure = row.values[name], row.uncertainty.get(name)
        if statistic is None or sure is None:
            return _statistic(statistic, "{:.3f}")
        return f"{statistic.mean:.3f} [{sure.low:.3f}, {sure.high:.3f}]"

    return text


def _error(name: str, part: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        sure = row.uncertainty.get(name)
        value = getattr(sure, part) if sure else None
        return "-" if value is None else f"{value:.3f}"

    return text


def _without_a_group(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        sure = row.uncertainty.get(name)
        ends = sure.without_a_group if sure else None
        return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"

    return text


def _score(name: str) -> Callable[[Row], str]:
    return lambda row: _statistic(row.values[name], "{:.3f}")


def _scaled(name: str, factor: float, pattern: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        statistic = row.values[name]
        return pattern.format(statistic.mean * factor) if statistic else "-"

    return text


_NAME = Column("backbone", lambda row: row.title)
_GAP_COLUMNS = (
    Column("train micro-F1", _score("train_micro_f1")),
    Column("train accuracy", _score("train_subset_accuracy")),
    Column("F1 gap", _with_interval("micro_f1_gap")),
    Column("accuracy gap", _with_interval("subset_accuracy_gap")),
)
_COST_COLUMNS = (
    Column("weights", lambda row: row.weights or "-"),
    Column("parameters", lambda row: format_millions(row.parameters)),
    Column("seeds", lambda row: str(row.seeds)),
    Column("seconds", _scaled("train_seconds", 1, "{:.1f}")),
    Column("comments/s", _scaled("comments_per_second", 1, "{:.0f}")),
    Column("peak memory", _scaled("peak_memory_bytes", 2**-20, "{:.0f} MiB")),
)


def _statistic(statistic: Statistic | None, pattern: str) -> str:
    if statistic is None:
        return "-"
    mean = pattern.format(statistic.mean)
    if statistic.deviation is None:
        return mean
    return f"{mean} ± {pattern.format(statistic.deviation)}"


def comparison(leaderboard: Leaderboard, names: Sequence[str]) -> Table:
    """Return the differences of every pair of some candidates, and a verdict on each.

    Args:
        leaderboard: with all candidates; the correction for their number is over all of them.
        names: as the leaderboard shows them; none: all.

    Raises:
        SettingsError: there is no such candidate, or only one.
    """
    pairs = chosen_pairs(leaderboard, names)
    return comparison_table(pairs, [*map(conclusion, pairs), *limitations(leaderboard)])


def chosen_pairs(leaderboard: Leaderboard, names: Sequence[str]) -> list[Difference]:
    """Return the differences between some candidates, in the order of their names; raises alike."""
    known = [row.name for row in leaderboard.rows]
    wanted = list(dict.fromkeys(names)) or known
    for name in wanted:
        if name not in known:
            raise SettingsError(
                f"no candidate {name!r} on the leaderboard; it has: {', '.join(known) or 'none'}"
            )
    if len(wanted) < 2:
        raise SettingsError("a comparison needs two candidates that the leaderboard has")
    place = {name: i for i, name in enumerate(wanted)}
    pairs = [d for d in leaderboard.differences if d.one in place and d.other in place]
    return [d if place[d.one] < place[d.other] else reversed_difference(d) for d in pairs]
