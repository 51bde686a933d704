"""Tables and records of a leaderboard, and comparisons of its candidates."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from toxbench.errors import SettingsError
from toxbench.evaluation.definitions import HALF, HEADLINES
from toxbench.evaluation.significance import Verdict
from toxbench.plugin.contracts import Table
from toxbench.ranking.quoted import QuotedRow, quoted_metrics
from toxbench.ranking.rows import Leaderboard, Row, Statistic, candidate_key
from toxbench.records import CellRecord
from toxbench.report.notes import (
    conclusions,
    count_scored_labels,
    explanations,
    headline_notes,
    leaderboard_title,
    limitations,
    quoted_notes,
    warnings,
)
from toxbench.report.tables import Record
from toxbench.report.verdicts import comparison_table, conclusion, reversed_verdict
from toxbench.util.text import escape_line, format_millions, format_value, safe_quote

Column = tuple[str, Callable[[Row], str]]  # title and text of a row's cell


def leaderboard_tables(leaderboard: Leaderboard) -> list[Table]:
    """Return the headline table, then tables of the other scores, standard errors and costs.

    The last table has all notes; the headline table has the most important ones.
    """
    title = leaderboard_title(leaderboard)
    columns: dict[str, Sequence[Column]] = {
        "Tuned thresholds": _TUNED_COLUMNS,
        "More scores": _score_columns(leaderboard),
        "Train scores and gaps": _TRAIN_COLUMNS,
        "Ranks": _rank_columns(leaderboard),
        "Standard errors (SE) by source": _error_columns(leaderboard),
        "Weights and cost": _cost_columns(leaderboard),
    }
    first = _table(leaderboard, title, _headline_columns(leaderboard), headline_notes(leaderboard))
    others = [_table(leaderboard, name, (_NAME, *c), ()) for name, c in columns.items() if c]
    others[-1] = replace(others[-1], notes=_all_notes(leaderboard))
    return [first, *others]


def leaderboard_table(leaderboard: Leaderboard) -> Table:
    """Return all columns and all notes in one table, for formats that hold a single table."""
    columns: tuple[Column, ...] = (
        *_headline_columns(leaderboard),
        *_TUNED_COLUMNS,
        *_score_columns(leaderboard),
        *_TRAIN_COLUMNS,
        *_rank_columns(leaderboard),
        *_error_columns(leaderboard),
        *_cost_columns(leaderboard),
    )
    return _table(leaderboard, leaderboard_title(leaderboard), columns, _all_notes(leaderboard))


def leaderboard_records(leaderboard: Leaderboard) -> tuple[Record, ...]:
    """Return the measured rows as unrounded values: means, deviations and errors."""
    return tuple(_record(leaderboard, rank, row) for rank, row in enumerate(leaderboard.rows, 1))


def cell_records(leaderboard: Leaderboard, cells: Iterable[CellRecord]) -> list[Record]:
    """Return each score of each cell at threshold 0.5; candidates have the names of their rows."""
    names = {row.key: row.name for row in leaderboard.rows}
    return [
        {
            "candidate": names.get(candidate_key(cell.key), cell.key.candidate),
            "seed": cell.key.seed,
            "fold": cell.key.fold,
            "part": part,
            "metric": metric,
            "value": value,
        }
        for cell in cells
        for part, scores in cell.metrics[HALF].items()
        for metric, value in scores.items()
    ]


def compare_candidates(leaderboard: Leaderboard, names: Sequence[str]) -> Table:
    """Return the verdicts on all pairs of the named candidates, with a sentence on each.

    Without names, of all candidates. P-values are adjusted for all pairs of the leaderboard.

    Raises:
        SettingsError: a name is unknown, or there are fewer than two candidates.
    """
    pairs = _select_pairs(leaderboard, names)
    return comparison_table(pairs, [*map(conclusion, pairs), *limitations(leaderboard)])


def _record(leaderboard: Leaderboard, rank: int, row: Row) -> Record:
    low, high = row.ranks or (None, None)
    record: Record = {
        "rank": rank,
        "tier": row.tier,
        "p_best": row.best,
        "rank_low": low,
        "rank_high": high,
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
        "scored_labels": count_scored_labels(leaderboard),
        "constant": row.constant,
    }
    for name, statistic in row.values.items():
        record[name] = statistic.mean if statistic else None
        record[f"{name}_sd"] = statistic.deviation if statistic else None
    for name, uncertainty in row.uncertainty.items():
        record |= {
            f"{name}_low": uncertainty.low,
            f"{name}_high": uncertainty.high,
            f"{name}_error_rows": uncertainty.rows,
            f"{name}_error_seeds": uncertainty.seeds,
            f"{name}_error_folds": uncertainty.folds,
        }
    return record


def _records_with_quoted(leaderboard: Leaderboard) -> tuple[Record, ...]:
    """Return the records of all rows; quoted rows have the kind "quoted", and no rank."""
    measured = leaderboard_records(leaderboard)
    quoted: list[Record] = [
        {
            "candidate": escape_line(row.name),
            "kind": "quoted",
            **row.scores,
            "source": escape_line(row.source),
        }
        for row in leaderboard.quoted
    ]
    if not quoted:
        return measured
    blank: Record = dict.fromkeys(name for record in (*measured, *quoted) for name in record)
    return tuple({**blank, **record} for record in (*measured, *quoted))


def _table(
    leaderboard: Leaderboard, title: str, columns: Sequence[Column], notes: Sequence[str]
) -> Table:
    return Table(
        title=escape_line(title),
        headers=tuple(title for title, _ in columns),
        rows=(
            *(tuple(escape_line(text(row)) for _, text in columns) for row in leaderboard.rows),
            *_quoted_rows(leaderboard, columns),
        ),
        notes=tuple(map(escape_line, notes)),
        records=_records_with_quoted(leaderboard),
        keys=1 + columns.index(_NAME),
        best=_best_rows(leaderboard),
    )


def _quoted_rows(leaderboard: Leaderboard, columns: Sequence[Column]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the quoted rows that have a score in these columns."""
    for row in leaderboard.quoted:
        scores = [text.quoted(row) if isinstance(text, _ScoreText) else "" for _, text in columns]
        if any(scores):
            scores[columns.index(_NAME)] = escape_line(f"{row.name} (quoted)")
            yield tuple(scores)


def _all_notes(leaderboard: Leaderboard) -> tuple[str, ...]:
    texts = (
        *conclusions(leaderboard),
        *warnings(leaderboard),
        *explanations(leaderboard),
        *quoted_notes(leaderboard),
    )
    return tuple(map(escape_line, texts))


def _best_rows(leaderboard: Leaderboard) -> tuple[int, ...]:
    """Return the rows of tier 1, or the first row if there are no tiers."""
    first = [number for number, row in enumerate(leaderboard.rows) if row.tier == 1]
    return tuple(first or [0] if leaderboard.rows else [])


def _headline_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    metric, quoted = leaderboard.metric, quoted_metrics(leaderboard.quoted)
    columns: tuple[Column, ...] = (
        _NAME,
        *([] if metric in HEADLINES else [(metric, _ScoreText(metric))]),
        ("micro-F1", _ScoreText("micro_f1")),
        ("subset accuracy", _ScoreText("subset_accuracy")),
        *((name, _ScoreText(name)) for name in quoted if name not in {metric, *HEADLINES}),
        ("F1 gap", _ScoreText("micro_f1_gap")),
        ("accuracy gap", _ScoreText("subset_accuracy_gap")),
        ("seconds", _mean_text("train_seconds", "{:.1f}")),
    )
    has_tiers = any(row.tier is not None for row in leaderboard.rows)
    return (("tier", lambda row: str(row.tier)), *columns) if has_tiers else columns


def _score_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    scored, labels = count_scored_labels(leaderboard), len(leaderboard.protocol.labels)
    return (
        (f"macro-F1 ({scored} of {labels} labels)", _ScoreText("macro_f1")),
        ("micro-precision", _ScoreText("micro_precision")),
        ("micro-recall", _ScoreText("micro_recall")),
        ("micro average precision", _ScoreText("micro_average_precision")),
    )


def _error_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    """Return the standard errors by source; no column for a source that was not measured."""
    measured = [error for row in leaderboard.rows for error in row.uncertainty.values()]
    columns: list[Column] = []
    for name, title in HEADLINES.items():
        if measured:
            columns.append((f"{title} SE (test rows)", _error_text(name, "rows")))
        if any(error.seeds is not None for error in measured):
            columns.append((f"{title} SE (seeds)", _error_text(name, "seeds")))
        if any(error.folds is not None for error in measured):
            columns.append((f"{title} SE (folds)", _error_text(name, "folds")))
    return tuple(columns)


def _rank_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    """Return P(best) and the interval of the rank, if they were computed."""
    if all(row.ranks is None for row in leaderboard.rows):
        return ()
    return (
        ("P(best)", lambda row: "-" if row.best is None else f"{row.best:.2f}"),
        ("rank", lambda row: "-" if row.ranks is None else "{} to {}".format(*row.ranks)),
    )


def _cost_columns(leaderboard: Leaderboard) -> tuple[Column, ...]:
    """Return the costs, with the number of failed cells if a cell failed."""
    failed = ("failed cells", lambda row: str(row.failed))
    return (*_COST_COLUMNS, *([failed] if any(row.failed for row in leaderboard.rows) else []))


@dataclass(frozen=True)
class _ScoreText:
    """The text of a score: the mean with its confidence interval, or else its deviation."""

    name: str

    def __call__(self, row: Row) -> str:
        statistic, uncertainty = row.values[self.name], row.uncertainty.get(self.name)
        if statistic is None or uncertainty is None:
            return _mean_and_deviation(statistic)
        return f"{statistic.mean:.3f} [{uncertainty.low:.3f}, {uncertainty.high:.3f}]"

    def quoted(self, row: QuotedRow) -> str:
        """Return the text of a quoted score; "" if the publication does not give it."""
        return format_value(row.scores[self.name]) if self.name in row.scores else ""


def _error_text(name: str, source: str) -> Callable[[Row], str]:
    return lambda row: format_value(getattr(row.uncertainty.get(name), source, None))


def _mean_text(name: str, pattern: str, factor: float = 1) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        mean = row.mean(name)
        return "-" if mean is None else pattern.format(mean * factor)

    return text


def _mean_and_deviation(statistic: Statistic | None) -> str:
    if statistic is None:
        return "-"
    if statistic.deviation is None:
        return f"{statistic.mean:.3f}"
    return f"{statistic.mean:.3f} ± {statistic.deviation:.3f}"


def _select_pairs(leaderboard: Leaderboard, names: Sequence[str]) -> list[Verdict]:
    """Return the verdicts on the named candidates, in the order of the names."""
    available = [row.name for row in leaderboard.rows]
    selected = list(dict.fromkeys(names)) or available
    for name in selected:
        if name not in available:
            known = ", ".join(available) or "none"
            raise SettingsError(f"no candidate is called {safe_quote(name)}; candidates: {known}")
    if len(selected) < 2:
        raise SettingsError("a comparison needs at least two candidates of the leaderboard")
    place = {name: i for i, name in enumerate(selected)}
    pairs = [v for v in leaderboard.verdicts if v.main.first in place and v.main.second in place]
    is_ordered = [place[v.main.first] < place[v.main.second] for v in pairs]
    return [
        v if ordered else reversed_verdict(v) for v, ordered in zip(pairs, is_ordered, strict=True)
    ]


_NAME = ("backbone", lambda row: row.title)
_TUNED_COLUMNS = (
    ("micro-F1 (global threshold)", _ScoreText("micro_f1_global")),
    ("subset accuracy (accuracy threshold)", _ScoreText("subset_accuracy_accuracy")),
    ("micro-F1 (per-label thresholds)", _ScoreText("micro_f1_per_label")),
)
_TRAIN_COLUMNS = (
    ("train micro-F1", _ScoreText("train_micro_f1")),
    ("train subset accuracy", _ScoreText("train_subset_accuracy")),
    ("F1 gap (global threshold)", _ScoreText("micro_f1_global_gap")),
    ("excess accuracy gap", _ScoreText("subset_accuracy_excess_gap")),
    ("log loss gap", _ScoreText("log_loss_gap")),
)
_COST_COLUMNS = (
    ("weights", lambda row: row.weights or "-"),
    ("parameters", lambda row: format_millions(row.parameters)),
    ("seeds", lambda row: str(row.seeds)),
    ("train comments/s", _mean_text("comments_per_second", "{:.0f}")),
    ("peak memory", _mean_text("peak_memory_bytes", "{:.0f} MiB", factor=2**-20)),
)
