"""Stored cells to ranked rows: a pure function, so that anybody gets the same leaderboard."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal

from toxbench.errors import StorageError
from toxbench.evaluation.comparison import Difference
from toxbench.evaluation.thresholds import GLOBAL, HALF, PER_LABEL
from toxbench.evaluation.uncertainty import Uncertainty
from toxbench.records import CellRecord, Part, TuningRecord
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
        weights: what it started from, else "".
        values: column name -> statistic, None where a cell has no such value.
        tuning: where searched settings came from; None: they were not searched.
        label_f1: mean F1 of each label at threshold 0.5, in the protocol's order.
        label_average_precision: mean of each label, None without a positive test row.
        constant: in every cell, the same prediction for every test row.
        uncertainty: column name -> how sure its mean is, of those that can be resampled.
        tier: from 1; candidates of one tier cannot be told apart. None: too few seeds for that.
    """

    candidate: str
    digest: str
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
    uncertainty: Mapping[str, Uncertainty] = field(default_factory=dict)
    tier: int | None = None

    @property
    def name(self) -> str:
        """What tells it from all other rows."""
        tuned = " (tuned)" if self.tuning else ""
        difference = f" [{self.difference}]" if self.difference else ""
        return f"{self.candidate}{tuned}{difference}"


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
class Leaderboard:
    """All candidates of one protocol, the highest micro-F1 first.

    Attributes:
        protocol: that all were measured with.
        rows: one for each candidate with a seed that has every fold.
        unfinished: names of the candidates without.
        differences: of every pair of rows, on each headline score.
        sampling: what the intervals rest on; None where there are none.
    """

    protocol: ProtocolRecord
    rows: tuple[Row, ...]
    unfinished: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    sampling: Sampling | None = None


Value = Callable[[CellRecord], float | None]


def _metric(name: str, part: Part = "test", rule: str = HALF) -> Value:
    return lambda cell: cell.metrics[rule][part][name] if rule in cell.metrics else None


def _gap(name: str) -> Value:
    """Train minus test: the same checkpoint, in eval mode, at the same thresholds."""

    def gap(cell: CellRecord) -> float | None:
        train, test = _metric(name, "train")(cell), _metric(name)(cell)
        return None if train is None or test is None else train - test

    return gap


def _validation(cell: CellRecord) -> float | None:
    """Average precision of tuned settings on inner validation rows, trained with fresh seeds."""
    return cell.tuning.average_precision if cell.tuning else None


def _optimism(cell: CellRecord) -> float | None:
    """Validation minus test: what choosing by validation rows promised too much."""
    validation, test = _validation(cell), _metric("micro_average_precision")(cell)
    return None if validation is None or test is None else validation - test


# Column -> what it is of one cell. Scores are of the test rows at threshold 0.5 unless they say so.
COLUMNS: Mapping[str, Value] = {
    "micro_f1": _metric("micro_f1"),
    "micro_f1_global": _metric("micro_f1", rule=GLOBAL),
    "micro_f1_per_label": _metric("micro_f1", rule=PER_LABEL),
    "macro_f1": _metric("macro_f1"),
    "subset_accuracy": _metric("subset_accuracy"),
    "subset_accuracy_global": _metric("subset_accuracy", rule=GLOBAL),
    "subset_accuracy_per_label": _metric("subset_accuracy", rule=PER_LABEL),
    "micro_precision": _metric("micro_precision"),
    "micro_recall": _metric("micro_recall"),
    "micro_average_precision": _metric("micro_average_precision"),
    "validation_average_precision": _validation,
    "optimism": _optimism,
    "train_micro_f1": _metric("micro_f1", "train"),
    "train_subset_accuracy": _metric("subset_accuracy", "train"),
    "micro_f1_gap": _gap("micro_f1"),
    "subset_accuracy_gap": _gap("subset_accuracy"),
    "best_epoch": lambda cell: cell.best_epoch,
    "train_seconds": lambda cell: cell.cost.train_seconds,
    "evaluation_seconds": lambda cell: cell.cost.evaluation_seconds,
    "comments_per_second": lambda cell: cell.cost.comments_per_second,
    "peak_memory_bytes": lambda cell: cell.cost.peak_memory_bytes,
}


def build_leaderboard(protocol: ProtocolRecord, cells: Iterable[CellRecord]) -> Leaderboard:
    """Rank the candidates of one protocol; the order of ``cells`` does not matter.

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
    rows = map(_row, found, _differences(found))
    unfinished = tuple(sorted({name for (name, _), cells in whole.items() if not cells}))
    return Leaderboard(protocol, tuple(sorted(rows, key=rank)), unfinished)


def _whole_seeds(cells: Sequence[CellRecord], folds: int) -> list[CellRecord]:
    """Leave out the seeds that lack a fold: theirs is a score of other rows."""
    seeds = [cell.key.seed for cell in cells]
    return [cell for cell in cells if seeds.count(cell.key.seed) == folds]


def _row(cells: Sequence[CellRecord], difference: str) -> Row:
    first = cells[0]
    return Row(
        candidate=first.key.candidate,
        digest=first.key.digest,
        kind=first.kind,
        difference=difference,
        weights=first.weights.label if first.weights else "",
        stand_in=first.weights is not None and first.weights.source == "stand-in",
        parameters=first.parameters,
        cells=len(cells),
        seeds=len({cell.key.seed for cell in cells}),
        values={name: _mean_over_folds(cells, of) for name, of in COLUMNS.items()},
        tuning=first.tuning,
        label_f1=_label_f1(cells),
        label_average_precision=_label_average_precision(cells),
        constant=all(cell.constant for cell in cells),
    )


def _label_average_precision(cells: Sequence[CellRecord]) -> tuple[float | None, ...]:
    by_label = zip(*(cell.per_label[HALF] for cell in cells), strict=True)
    values = ([scores.average_precision for scores in label] for label in by_label)
    known = ([value for value in label if value is not None] for label in values)
    return tuple(fmean(label) if label else None for label in known)


def _label_f1(cells: Sequence[CellRecord]) -> tuple[float, ...]:
    """Average over the cells whose fold has a positive row of the label."""
    by_label = zip(*(cell.per_label[HALF] for cell in cells), strict=True)
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


def rank(row: Row) -> tuple[float, str, str, str]:
    """Sort key: the highest micro-F1 first."""
    f1 = row.values["micro_f1"]
    return (-f1.mean if f1 else 1.0, row.candidate, row.difference, row.weights)


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
