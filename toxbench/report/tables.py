"""A leaderboard as tables: what to show, rounded and worded; formats only write it down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toxbench.plugin.formats import Table
from toxbench.report.leaks import leak_note
from toxbench.report.words import millions, printable
from toxbench.store.leaderboard import Leaderboard, Row, Statistic


@dataclass(frozen=True)
class Column:
    """A title and how to write a row's cell below it."""

    title: str
    text: Callable[[Row], str]


def leaderboard_table(leaderboard: Leaderboard) -> Table:
    """Return the whole leaderboard as one table with notes."""
    columns = (*_score_columns(leaderboard), *_COST_COLUMNS[1:])
    return _table(leaderboard, _title(leaderboard), columns, _notes(leaderboard))


def terminal_tables(leaderboard: Leaderboard) -> list[Table]:
    """Return the same in three tables that fit a terminal: scores, overfitting, cost."""
    name = _COST_COLUMNS[0]
    scores = _score_columns(leaderboard)
    return [
        _table(leaderboard, _title(leaderboard), scores[:9], ()),
        _table(leaderboard, "Overfitting (train minus test)", (name, *scores[9:]), ()),
        _table(leaderboard, "Cost and origin", (name, *_COST_COLUMNS[1:]), _notes(leaderboard)),
    ]


def label_table(leaderboard: Leaderboard) -> Table:
    """Return the F1 of each label for each candidate, with the label's positive test rows."""
    supports = leaderboard.protocol.tested_supports
    records: list[dict[str, str | int | float | bool | None]] = []
    for i, (label, support) in enumerate(supports.items()):
        record: dict[str, str | int | float | bool | None] = {
            "label": printable(label),
            "test positives": support,
        }
        for row in leaderboard.rows:
            record[_name(row)] = row.label_f1[i] if support else None
        records.append(record)
    return Table(
        title="F1 of each label at threshold 0.5, mean over seeds",
        headers=("label", "test positives", *map(_name, leaderboard.rows)),
        rows=tuple(tuple(map(_cell, record.values())) for record in records),
        notes=("A label without a positive test row has no F1.",),
        records=tuple(records),
    )


def records(leaderboard: Leaderboard) -> tuple[dict[str, str | int | float | bool | None], ...]:
    """Return the rows as unrounded values, one column for each mean and each deviation."""
    flat: list[dict[str, str | int | float | bool | None]] = []
    for rank, row in enumerate(leaderboard.rows, start=1):
        record: dict[str, str | int | float | bool | None] = {
            "rank": rank,
            "candidate": row.candidate,
            "kind": row.kind,
            "tuned": row.tuning is not None,
            "settings": row.difference,
            "weights": printable(row.weights),
            "stand_in": row.stand_in,
            "synthetic": leaderboard.protocol.synthetic,
            "parameters": row.parameters,
            "cells": row.cells,
            "seeds": row.seeds,
            "scored_labels": _scored_labels(leaderboard),
            "constant": row.constant,
        }
        for name, statistic in row.values.items():
            record[name] = statistic.mean if statistic else None
            record[f"{name}_sd"] = statistic.deviation if statistic else None
        flat.append(record)
    return tuple(flat)


def _table(
    leaderboard: Leaderboard, title: str, columns: Sequence[Column], notes: Sequence[str]
) -> Table:
    return Table(
        title=printable(title),
        headers=tuple(column.title for column in columns),
        rows=tuple(
            tuple(printable(column.text(row)) for column in columns) for row in leaderboard.rows
        ),
        notes=tuple(map(printable, notes)),
        records=records(leaderboard),
    )


def _score_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    labels = len(leaderboard.protocol.labels)
    macro = f"macro-F1 ({_scored_labels(leaderboard)} of {labels} labels)"
    return (
        Column("backbone", _name),
        Column("micro-F1", _score("micro_f1")),
        Column(macro, _score("macro_f1")),
        Column("subset accuracy", _score("subset_accuracy")),
        Column("precision", _score("micro_precision")),
        Column("recall", _score("micro_recall")),
        Column("micro-F1, global thr.", _score("micro_f1_global")),
        Column("accuracy, global thr.", _score("subset_accuracy_global")),
        Column("micro-F1, per-label thr.", _score("micro_f1_per_label")),
        Column("train micro-F1", _score("train_micro_f1")),
        Column("train accuracy", _score("train_subset_accuracy")),
        Column("F1 gap", _score("micro_f1_gap")),
        Column("accuracy gap", _score("subset_accuracy_gap")),
    )


def _score(name: str) -> Callable[[Row], str]:
    return lambda row: _statistic(row.values[name], "{:.3f}")


def _scaled(name: str, factor: float, pattern: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        statistic = row.values[name]
        return pattern.format(statistic.mean * factor) if statistic else "-"

    return text


def _name(row: Row) -> str:
    flag = " (constant!)" if row.constant else ""
    difference = f" [{row.difference}]" if row.difference else ""
    tuned = " (tuned)" if row.tuning else ""
    return f"{row.candidate}{tuned}{difference}{flag}"


_COST_COLUMNS = (
    Column("backbone", _name),
    Column("weights", lambda row: row.weights or "-"),
    Column("parameters", lambda row: millions(row.parameters)),
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


def _title(leaderboard: Leaderboard) -> str:
    protocol, first = leaderboard.protocol, leaderboard.protocol.folds[0]
    fingerprint = protocol.fingerprint[:12]
    if len(protocol.folds) > 1:
        tested = sum(len(fold.test) for fold in protocol.folds)
        return (
            f"Leaderboard of {protocol.name}: {len(protocol.folds)} folds, {tested} rows tested "
            f"once; protocol {fingerprint}"
        )
    return (
        f"Leaderboard of {protocol.name}: {len(first.test)} test rows, {len(first.train)} train, "
        f"{len(first.validation)} validation; protocol {fingerprint}"
    )


def _scored_labels(leaderboard: Leaderboard) -> int:
    return sum(count > 0 for count in leaderboard.protocol.tested_supports.values())


def _notes(leaderboard: Leaderboard) -> list[str]:
    """Say what a reader must know before quoting a number."""
    protocol, rows = leaderboard.protocol, leaderboard.rows
    notes: list[str] = []
    if protocol.synthetic:
        notes.append("Synthetic sample: these scores say nothing about real comments.")
    if protocol.audit is not None and protocol.audit.affected:
        notes.append(leak_note(protocol.audit))
    if any(row.stand_in for row in rows):
        notes.append(
            "stand-in rows start from small substitute weights; they do not measure the "
            "checkpoint that gives the backbone its name."
        )
    unscored = [name for name, count in protocol.tested_supports.items() if count == 0]
    if unscored:
        notes.append(f"Without a positive test row, left out of macro: {', '.join(unscored)}.")
    if any(row.constant for row in rows):
        notes.append("(constant!) predicts the same for every test row.")
    if any(row.cells > 1 for row in rows):
        notes.append("± is the standard deviation over seeds, not an interval of confidence.")
    notes.extend(_tuning_note(row) for row in rows if row.tuning)
    cells = {row.cells for row in rows if row.kind == "backbone"}
    if len(cells) > 1:
        notes.append("Rows do not rest on the same number of seeds; compare them with care.")
    notes.append(
        "Scores are of the test rows at threshold 0.5 unless a column says otherwise; tuned "
        "thresholds are chosen on validation rows. Seconds are for training one seed."
    )
    return notes


def _tuning_note(row: Row) -> str:
    """Say how settings were found, and how much the validation rows promised too much."""
    tuning, test, optimism = (
        row.tuning,
        row.values["micro_average_precision"],
        row.values["optimism"],
    )
    if tuning is None or test is None or optimism is None:
        return f"{_name(row)}: average precision is undefined on these test rows."
    return (
        f"{_name(row)}: best of {tuning.trials} trials ({tuning.pruned} pruned, {tuning.failed} "
        f"failed), thresholds from inner validation rows; micro average precision "
        f"{tuning.average_precision:.3f} there with fresh seeds, {test.mean:.3f} on test rows: "
        f"validation-to-test optimism {optimism.mean:+.3f}."
    )


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
