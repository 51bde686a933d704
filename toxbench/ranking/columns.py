"""Columns of the leaderboard: functions from a cell to its value."""

from collections.abc import Callable, Iterable

from toxbench.evaluation.definitions import (
    GAP_COLUMNS,
    HEADLINES,
    RANKING_METRIC,
    TUNED_COLUMNS,
)
from toxbench.records import CellRecord, Part

Getter = Callable[[CellRecord], float | None]


def columns(rule: str, metric: str = RANKING_METRIC, more: Iterable[str] = ()) -> dict[str, Getter]:
    """Return column name -> function from a cell to its value; scores are of the test rows.

    The rule is for columns that do not name one. The metric to rank by always has a column, and
    so do the metrics in ``more``.
    """
    return {
        metric: _metric(metric, rule),
        "micro_f1": _metric("micro_f1", rule),
        **{name: _metric(*column) for name, column in TUNED_COLUMNS.items()},
        "macro_f1": _metric("macro_f1", rule),
        "subset_accuracy": _metric("subset_accuracy", rule),
        "micro_precision": _metric("micro_precision", rule),
        "micro_recall": _metric("micro_recall", rule),
        "micro_average_precision": _metric("micro_average_precision", rule),
        "promised_gain": _promised_gain,
        **{f"train_{name}": _metric(name, rule, "train") for name in HEADLINES},
        **dict.fromkeys(GAP_COLUMNS, _unknown),  # some are known only over all folds together
        **{
            f"{name}_gap": _difference(_metric(name, rule, "train"), _metric(name, rule))
            for name in HEADLINES
        },
        "train_seconds": lambda cell: cell.cost.train_seconds,
        "evaluation_seconds": lambda cell: cell.cost.evaluation_seconds,
        "comments_per_second": lambda cell: cell.cost.comments_per_second,
        "peak_memory_bytes": lambda cell: cell.cost.peak_memory_bytes,
        **{name: _metric(name, rule) for name in more},
    }


def _metric(name: str, rule: str, part: Part = "test") -> Getter:
    return lambda cell: cell.metrics[rule][part][name] if rule in cell.metrics else None


def _unknown(_cell: CellRecord) -> None:
    return None


def _difference(first: Getter, second: Getter) -> Getter:
    def difference(cell: CellRecord) -> float | None:
        a, b = first(cell), second(cell)
        return None if a is None or b is None else a - b

    return difference


def _promised_gain(cell: CellRecord) -> float | None:
    """Return the gain of tuned settings over the default ones on inner validation rows."""
    return cell.tuning.promised_gain if cell.tuning else None
