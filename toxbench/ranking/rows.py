"""Stored cells to ranked rows: a pure function, so that anybody gets the same leaderboard."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from statistics import fmean, stdev
from typing import Literal

from toxbench.errors import StorageError
from toxbench.evaluation.bootstrap import Uncertainty
from toxbench.evaluation.definitions import GLOBAL, HALF, METRICS, PER_LABEL
from toxbench.evaluation.significance import Difference
from toxbench.records import CellKey, CellRecord, FailureRecord, Part, TuningRecord
from toxbench.store.cells import ProtocolRecord


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (n - 1) over a candidate's seeds."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Row:
    """One candidate on the leaderboard.

    Attributes:
        candidate: backbone or baseline name.
        digest: of everything else that was chosen.
        difference: settings that tell it from another row of the same name, else "".
        weights: what it started from; of a baseline that was fitted on a sample of the train rows,
            how many those are; else "".
        values: column name -> statistic, None where a cell has no such value.
        tuning: where searched settings came from; None: they were not searched.
        label_f1: mean F1 of each label, in the protocol's order.
        label_average_precision: mean of each label, None without a positive test row.
        constant: in every cell, the same prediction for every test row.
        uncertainty: column name -> how sure its mean is, of those that can be resampled.
        tier: from 1; candidates of one tier cannot be told apart. None: too few seeds for that.
        failed: cells that have no result.
    """

    candidate: str
    kind: Literal["backbone", "baseline"]
    difference: str
    weights: str
    stand_in: bool
    parameters: int | None
    cells: int
    seeds: int
    values: Mapping[str, Statistic | None]
    tuning: TuningRecord | None
    label_f1: tuple[float, ...]
    label_average_precision: tuple[float | None, ...]
    constant: bool
    digest: str = ""
    uncertainty: Mapping[str, Uncertainty] = field(default_factory=dict)
    tier: int | None = None
    failed: int = 0

    @property
    def name(self) -> str:
        """What tells it from all other rows."""
        tuned = " (tuned)" if self.tuning else ""
        difference = f" [{self.difference}]" if self.difference else ""
        return f"{self.candidate}{tuned}{difference}"

    @property
    def title(self) -> str:
        """The name, with a warning where the candidate predicts nothing but a constant."""
        return f"{self.name} (constant!)" if self.constant else self.name


@dataclass(frozen=True)
class Sampling:
    """What the intervals resample.

    Attributes:
        group_count: groups among the tested rows.
        by_group: whole groups are resampled; otherwise they are too few, and single rows are.
        has_groups: the table names groups; without, only equal texts belong together.
    """

    group_count: int
    by_group: bool
    has_groups: bool


@dataclass(frozen=True)
class FailedCells:
    """The cells of one candidate that have no result.

    Attributes:
        name: of the candidate.
        digest: of everything else that was chosen.
        kinds: of what went wrong, each once.
        failed: cells.
        cells: of the candidate, failed and stored.
    """

    name: str
    digest: str
    kinds: tuple[str, ...]
    failed: int
    cells: int


@dataclass(frozen=True)
class Leaderboard:
    """All candidates of one protocol, the highest micro-F1 first.

    Attributes:
        protocol: that all were measured with.
        rows: one for each candidate with a seed that has every fold.
        unfinished: names of the candidates without.
        differences: of every pair of rows, on each headline score.
        sampling: what the intervals rest on; None where there are none.
        rule: of the thresholds that scores without a rule of their own are at.
        metric: that ranks.
        failures: of each candidate with failed cells, whether it has a row or not.
    """

    protocol: ProtocolRecord
    rows: tuple[Row, ...]
    unfinished: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    sampling: Sampling | None = None
    rule: str = HALF
    metric: str = "micro_f1"
    failures: tuple[FailedCells, ...] = ()


Value = Callable[[CellRecord], float | None]


def _metric(name: str, rule: str, part: Part = "test") -> Value:
    return lambda cell: cell.metrics[rule][part][name] if rule in cell.metrics else None


def _gap(name: str, rule: str) -> Value:
    """Train minus test: the same checkpoint, in eval mode, at the same thresholds."""

    def gap(cell: CellRecord) -> float | None:
        train, test = _metric(name, rule, "train")(cell), _metric(name, rule)(cell)
        return None if train is None or test is None else train - test

    return gap


def _validation(cell: CellRecord) -> float | None:
    """Average precision of tuned settings on inner validation rows, trained with fresh seeds."""
    return cell.tuning.average_precision if cell.tuning else None


def _optimism(cell: CellRecord) -> float | None:
    """Validation minus test: what choosing by validation rows promised too much."""
    validation, test = _validation(cell), _metric("micro_average_precision", HALF)(cell)
    return None if validation is None or test is None else validation - test


def columns(rule: str, metric: str = "micro_f1") -> dict[str, Value]:
    """Return column -> what it is of one cell; scores are of the test rows.

    Args:
        rule: of the thresholds, where a column does not name one.
        metric: that ranks; it has a column in any case.
    """
    return {
        metric: _metric(metric, rule),
        "micro_f1": _metric("micro_f1", rule),
        "micro_f1_global": _metric("micro_f1", GLOBAL),
        "micro_f1_per_label": _metric("micro_f1", PER_LABEL),
        "macro_f1": _metric("macro_f1", rule),
        "subset_accuracy": _metric("subset_accuracy", rule),
        "subset_accuracy_global": _metric("subset_accuracy", GLOBAL),
        "subset_accuracy_per_label": _metric("subset_accuracy", PER_LABEL),
        "micro_precision": _metric("micro_precision", rule),
        "micro_recall": _metric("micro_recall", rule),
        "micro_average_precision": _metric("micro_average_precision", rule),
        "validation_average_precision": _validation,
        "optimism": _optimism,
        "train_micro_f1": _metric("micro_f1", rule, "train"),
        "train_subset_accuracy": _metric("subset_accuracy", rule, "train"),
        "micro_f1_gap": _gap("micro_f1", rule),
        "subset_accuracy_gap": _gap("subset_accuracy", rule),
        "best_epoch": lambda cell: cell.best_epoch,
        "train_seconds": lambda cell: cell.cost.train_seconds,
        "evaluation_seconds": lambda cell: cell.cost.evaluation_seconds,
        "comments_per_second": lambda cell: cell.cost.comments_per_second,
        "peak_memory_bytes": lambda cell: cell.cost.peak_memory_bytes,
    }


def summarize_cells(
    protocol: ProtocolRecord,
    cells: Iterable[CellRecord],
    rule: str = HALF,
    metric: str = "micro_f1",
    failures: Iterable[FailureRecord] = (),
) -> Leaderboard:
    """Rank the candidates of one protocol; the order of ``cells`` does not matter.

    Args:
        protocol: that all cells were measured with.
        cells: of any candidates, folds and seeds.
        rule: of the thresholds.
        metric: to rank by.
        failures: noted beside the cells, in any order.

    Raises:
        StorageError: a cell was measured with another protocol.
    """
    candidates: dict[tuple[str, str], list[CellRecord]] = {}
    for cell in sorted(cells, key=lambda cell: cell.key.stem):
        if cell.fingerprint != protocol.fingerprint:
            raise StorageError(
                f"cell {cell.key.stem} belongs to protocol {cell.fingerprint[:12]}, not to "
                f"{protocol.fingerprint[:12]}: scores of two yardsticks are not compared"
            )
        candidates.setdefault((cell.key.candidate, cell.key.digest), []).append(cell)
    whole = {key: _whole_seeds(cells, len(protocol.folds)) for key, cells in candidates.items()}
    found = [cells for cells in whole.values() if cells]
    wanted = columns(rule, metric)
    failed = failed_cells(failures, {k: [c.key for c in own] for k, own in candidates.items()})
    counts = {(own.name, own.digest): own.failed for own in failed}
    rows = [
        replace(row, failed=counts.get((row.candidate, row.digest), 0))
        for row in map(_row, found, _differences(found), repeat(rule), repeat(wanted))
    ]
    unfinished = tuple(sorted({name for (name, _), cells in whole.items() if not cells}))
    return Leaderboard(
        protocol, ranked(rows, metric), unfinished, rule=rule, metric=metric, failures=failed
    )


def _whole_seeds(cells: Sequence[CellRecord], folds: int) -> list[CellRecord]:
    """Leave out the seeds that lack a fold: theirs is a score of other rows."""
    seeds = [cell.key.seed for cell in cells]
    return [cell for cell in cells if seeds.count(cell.key.seed) == folds]


def _row(
    cells: Sequence[CellRecord], difference: str, rule: str, wanted: Mapping[str, Value]
) -> Row:
    first = cells[0]
    return Row(
        candidate=first.key.candidate,
        digest=first.key.digest,
        kind=first.kind,
        difference=difference,
        weights=_start(first),
        stand_in=first.weights is not None and first.weights.source == "stand-in",
        parameters=first.parameters,
        cells=len(cells),
        seeds=len({cell.key.seed for cell in cells}),
        values={name: _mean_over_folds(cells, of) for name, of in wanted.items()},
        tuning=first.tuning,
        label_f1=_label_f1(cells, rule),
        label_average_precision=_label_average_precision(cells),
        constant=all(cell.has_constant_predictions for cell in cells),
    )


def _start(cell: CellRecord) -> str:
    """Say what a candidate started from, or that it did not get all train rows."""
    if cell.weights is not None:
        return cell.weights.label
    return f"fitted on {cell.fitted_rows:,} train rows" if cell.fitted_rows is not None else ""


def _label_average_precision(cells: Sequence[CellRecord]) -> tuple[float | None, ...]:
    by_label = zip(*(cell.per_label[HALF] for cell in cells), strict=True)
    values = ([scores.average_precision for scores in label] for label in by_label)
    known = ([value for value in label if value is not None] for label in values)
    return tuple(fmean(label) if label else None for label in known)


def _label_f1(cells: Sequence[CellRecord], rule: str) -> tuple[float, ...]:
    """Average over the cells whose fold has a positive row of the label."""
    by_label = zip(*(cell.per_label[rule] for cell in cells), strict=True)
    scored = ([scores.f1 for scores in label if scores.support] for label in by_label)
    return tuple(fmean(values) if values else 0.0 for values in scored)


def _mean_over_folds(cells: Sequence[CellRecord], of: Value) -> Statistic | None:
    by_seed: dict[int, list[float]] = {}
    for cell in cells:
        value = of(cell)
        if value is None:
            return None
        by_seed.setdefault(cell.key.seed, []).append(float(value))
    return statistic([fmean(values) for values in by_seed.values()])


def statistic(values: Sequence[float]) -> Statistic:
    """Describe one value of each seed."""
    return Statistic(fmean(values), stdev(values) if len(values) > 1 else None)


def ranked(rows: Iterable[Row], metric: str) -> tuple[Row, ...]:
    """Sort rows, the best of a metric first and those without a value last."""
    sign = 1 if METRICS[metric].direction == "lower" else -1

    def key(row: Row) -> tuple[float, str, str, str]:
        value = row.values[metric]
        place = sign * value.mean if value else math.inf
        return (place, row.candidate, row.difference, row.weights)

    return tuple(sorted(rows, key=key))


def _differences(candidates: Sequence[Sequence[CellRecord]]) -> list[str]:
    """Say of each candidate which settings tell it from others of its name."""
    texts: list[str] = []
    for cells in candidates:
        own = _settings(cells[0])
        same_name = [_settings(other[0]) for other in candidates if _comparable(other[0], cells[0])]
        telling = [name for name in own if any(other.get(name) != own[name] for other in same_name)]
        texts.append(" ".join(f"{name}={_short(own[name])}" for name in telling))
    return _unlike(candidates, texts)


def _unlike(candidates: Sequence[Sequence[CellRecord]], texts: Sequence[str]) -> list[str]:
    """Mark rows that settings do not tell apart (but weights, say) with their digest.

    No two rows may be called the same: comparisons and intervals are found by name.
    """
    names = [
        (cells[0].key.candidate, cells[0].tuning is None, text)
        for cells, text in zip(candidates, texts, strict=True)
    ]
    return [
        f"{text} #{cells[0].key.digest[:6]}".strip() if names.count(name) > 1 else text
        for cells, name, text in zip(candidates, names, texts, strict=True)
    ]


def _comparable(one: CellRecord, other: CellRecord) -> bool:
    """Whether two rows need their settings to tell them apart."""
    names = one.key.candidate == other.key.candidate and one.kind == other.kind
    return names and (one.tuning is None) == (other.tuning is None)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _settings(cell: CellRecord) -> dict[str, object]:
    return cell.settings.model_dump() if cell.settings else {}


def failed_cells(
    failures: Iterable[FailureRecord], stored: Mapping[tuple[str, str], Iterable[CellKey]]
) -> tuple[FailedCells, ...]:
    """Count the failures of each candidate, in the order of names.

    Args:
        failures: of any candidates; those of cells that have a result since do not count.
        stored: candidate -> keys of its cells.
    """
    keys = {candidate: set(own) for candidate, own in stored.items()}
    failed: dict[tuple[str, str], list[FailureRecord]] = defaultdict(list)
    for record in sorted(failures, key=lambda record: record.key.stem):
        candidate = record.key.candidate, record.key.digest
        if record.key not in keys.get(candidate, ()):
            failed[candidate].append(record)
    return tuple(
        FailedCells(
            name=name,
            digest=digest,
            kinds=tuple(sorted({record.kind for record in own})),
            failed=len(own),
            cells=len(own) + len(keys.get((name, digest), ())),
        )
        for (name, digest), own in sorted(failed.items())
    )
