"""Values and names in the rows of a leaderboard, all from the records of cells."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from toxbench.evaluation.definitions import (
    GAP_COLUMNS,
    HEADLINES,
    RANKING_METRIC,
    TUNED_COLUMNS,
)
from toxbench.records import CellRecord, Part
from toxbench.util.text import format_setting

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


def mixed_environments(cells: Iterable[CellRecord]) -> str:
    """Return what differs between the cells and changes bytes, such as ``threads (1, 2)``.

    Empty if nothing differs. Cells are not trained again for it.
    """
    values: dict[str, set[object]] = defaultdict(set)
    for cell in cells:
        environment = cell.environment
        values["device"].add(environment.device_name)
        values["precision"].add(environment.precision)
        values["threads"].add(environment.threads)
        for package, version in environment.versions.items():
            values[package].add(version)
    return ", ".join(
        f"{name} ({', '.join(sorted(map(str, different)))})"
        for name, different in values.items()
        if len(different) > 1
    )


def distinguishing_settings(candidates: Sequence[CellRecord]) -> list[str]:
    """Return the settings that distinguish each candidate, given by a cell, from its namesakes.

    Names must be unique, because comparisons and intervals are looked up by name. Rows that
    settings do not distinguish (but weights may, for example) get their digest.
    """
    settings = [cell.all_settings for cell in candidates]
    names = [
        (cell.key.candidate, cell.adaptation, cell.kind, cell.tuning is None) for cell in candidates
    ]
    values: dict[tuple[object, ...], set[str]] = defaultdict(set)  # of each name and setting
    for name, of_cell in zip(names, settings, strict=True):
        for setting, value in of_cell.items():
            values[*name, setting].add(repr(value))
    texts: list[str] = []
    for name, of_cell in zip(names, settings, strict=True):
        adaptation = [name[1]] if name[1] != "full" else []
        different = [setting for setting in of_cell if len(values[*name, setting]) > 1]
        changes = [f"{setting}={format_setting(of_cell[setting])}" for setting in different]
        texts.append(" ".join([*adaptation, *changes]))
    rows = [
        (cell.key.candidate, cell.tuning is None, text)
        for cell, text in zip(candidates, texts, strict=True)
    ]
    counts = Counter(rows)
    return [
        f"{row[-1]} #{cell.key.digest[:6]}".strip() if counts[row] > 1 else row[-1]
        for cell, row in zip(candidates, rows, strict=True)
    ]
