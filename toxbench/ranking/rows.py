"""Leaderboard rows from cell records, as a pure function: equal cells give equal leaderboards."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

import numpy as np

from toxbench.errors import StorageError
from toxbench.evaluation.bootstrap import MIN_EFFECTIVE_UNITS, Uncertainty
from toxbench.evaluation.definitions import (
    HALF,
    METRICS,
    RANKING_METRIC,
)
from toxbench.evaluation.ensembles import EnsembleChoice
from toxbench.evaluation.significance import Verdict
from toxbench.ranking.columns import Getter, columns, distinguishing_settings, mixed_environments
from toxbench.ranking.quoted import QuotedRow, quoted_metrics
from toxbench.records import CellKey, CellRecord, FailureRecord, TuningRecord
from toxbench.store.cells import ProtocolRecord

CandidateKey = tuple[str, str]  # name and digest

SEEDS_NEEDED = 5  # with fewer, results are exploratory and candidates get no tier


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (n - 1) over a candidate's seeds.

    Attributes:
        mean: over seeds.
        deviation: None for a single seed.
    """

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Row:
    """One candidate on the leaderboard.

    Attributes:
        candidate: backbone or baseline name.
        kind: of the candidate.
        stochastic: whether its results depend on the seed.
        difference: settings that distinguish it from another row of the same name, else "".
        weights: the initial weights of a backbone; the number of train rows of a baseline that was
            fitted on a sample of them; else "".
        stand_in: whether the initial weights are a stand-in.
        parameters: number of parameters; None for a baseline.
        cells: number of cells, of complete seeds.
        seeds: number of complete seeds.
        values: column name -> statistic, None if a cell lacks the value.
        tuning: the study that found the settings; None if they were not tuned.
        label_f1: mean F1 of each label, in the protocol's order.
        label_average_precision: mean of each label, None without a positive test row.
        constant: whether every cell predicts the same for all test rows.
        digest: of settings, weights and everything else that identifies the candidate.
        uncertainty: column name -> uncertainty of the mean, for values that can be resampled.
        label_uncertainty: of each label's ``micro_f1`` and ``micro_average_precision``; empty if
            they were not computed (see `with_label_intervals`).
        tier: from 1; none of a tier's candidates is apart from its best one. None: too few seeds.
        best: share of the resamples in which the candidate is the best; None: not computed.
        ranks: 95 % interval of its rank, for all rows together; None as ``best``.
        failed: number of cells without a result.
        mixed: how the environments of its cells differ; empty if they are equal.
        cut_token_share: share of the table's tokens that the candidate does not read, in [0, 1).
    """

    candidate: str
    kind: Literal["backbone", "baseline", "ensemble"]
    stochastic: bool
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
    label_uncertainty: tuple[Mapping[str, Uncertainty], ...] = ()
    tier: int | None = None
    best: float | None = None
    ranks: tuple[int, int] | None = None
    failed: int = 0
    mixed: str = ""
    cut_token_share: float = 0.0

    @property
    def key(self) -> CandidateKey:
        """The name and the digest of the candidate."""
        return self.candidate, self.digest

    @property
    def name(self) -> str:
        """The name, unique among the rows of a leaderboard."""
        tuned = " (tuned)" if self.tuning else ""
        difference = f" [{self.difference}]" if self.difference else ""
        return f"{self.candidate}{tuned}{difference}"

    @property
    def title(self) -> str:
        """The name, with a warning if the candidate is constant."""
        return f"{self.name} (constant!)" if self.constant else self.name

    def mean(self, column: str) -> float | None:
        """Return the mean of a column; None if a cell lacks the value."""
        statistic = self.values[column]
        return statistic.mean if statistic else None


@dataclass(frozen=True)
class Sampling:
    """The sampling units of the intervals: groups, and single rows without a group.

    Attributes:
        group_count: number of groups among the tested rows; 0 without a column of groups.
        single_rows: number of tested rows without a group.
        effective_units: number of units of equal size that are worth as much.
    """

    group_count: int
    single_rows: int
    effective_units: float

    @property
    def has_intervals(self) -> bool:
        """Whether there are enough units to estimate how scores vary."""
        return self.effective_units >= MIN_EFFECTIVE_UNITS


@dataclass(frozen=True)
class FailedCells:
    """The cells of one candidate that have no result.

    Attributes:
        name: of the candidate.
        digest: of settings, weights and everything else that identifies the candidate.
        kinds: of the failures, without duplicates.
        failed: number of failed cells.
        cells: number of the candidate's cells, failed and stored.
    """

    name: str
    digest: str
    kinds: tuple[str, ...]
    failed: int
    cells: int


@dataclass(frozen=True)
class Leaderboard:
    """All candidates of one protocol, the best first.

    Attributes:
        protocol: of all cells.
        rows: one for each candidate that has a complete seed, that is, one with every fold.
        unfinished: names of the candidates without a complete seed.
        verdicts: on every pair of rows, in each headline score; empty without intervals.
        sampling: units of the intervals; None if there are no rows.
        rule: thresholds rule of the columns that do not name one.
        metric: to rank by.
        failures: of each candidate with failed cells, with or without a row.
        quoted: scores of publications, which are shown but not ranked.
        ensemble_choice: of the average over candidates; None: there are no averages.
    """

    protocol: ProtocolRecord
    rows: tuple[Row, ...]
    unfinished: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    sampling: Sampling | None = None
    rule: str = HALF
    metric: str = RANKING_METRIC
    failures: tuple[FailedCells, ...] = ()
    quoted: tuple[QuotedRow, ...] = ()
    ensemble_choice: EnsembleChoice | None = None

    @property
    def is_exploratory(self) -> bool:
        """Whether a stochastic candidate has too few seeds for a conclusion."""
        return any(row.stochastic and row.seeds < SEEDS_NEEDED for row in self.rows)

    @property
    def untested(self) -> tuple[str, ...]:
        """Names of the stochastic candidates with one seed: no variance between seeds is known."""
        return tuple(r.name for r in self.rows if r.stochastic and r.seeds == 1)


def summarize_cells(
    protocol: ProtocolRecord,
    cells: Iterable[CellRecord],
    rule: str = HALF,
    metric: str = RANKING_METRIC,
    failures: Iterable[FailureRecord] = (),
    quoted: tuple[QuotedRow, ...] = (),
) -> Leaderboard:
    """Rank the candidates of one protocol; the order of cells and failures does not matter.

    Raises:
        StorageError: a cell belongs to another protocol.
    """
    candidates: dict[CandidateKey, list[CellRecord]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: cell.key.stem):
        if cell.fingerprint != protocol.fingerprint:
            raise StorageError(
                f"cell {cell.key.stem} belongs to protocol {cell.fingerprint[:12]}, not to "
                f"{protocol.fingerprint[:12]}; only results of one protocol can be compared"
            )
        candidates[candidate_key(cell.key)].append(cell)
    complete = {
        key: [cell for cell in stored if cell.key.seed in seeds]
        for key, stored in candidates.items()
        for seeds in [complete_seeds(stored, len(protocol.folds))]
    }
    ranked = {key: cells for key, cells in complete.items() if cells}
    differences = distinguishing_settings([cells[0] for cells in ranked.values()])
    failed = _count_failures(failures, {k: {c.key for c in v} for k, v in candidates.items()})
    failed_counts = {(cells.name, cells.digest): cells.failed for cells in failed}
    getters = columns(rule, metric, quoted_metrics(quoted))
    rows = [
        _make_row(cells, difference, rule, getters, failed_counts.get(key, 0))
        for (key, cells), difference in zip(ranked.items(), differences, strict=True)
    ]
    unfinished = tuple(sorted({name for (name, _), cells in complete.items() if not cells}))
    return Leaderboard(
        protocol, rank_rows(rows, metric), unfinished, rule=rule, metric=metric, failures=failed,
        quoted=quoted,
    )  # fmt: skip


def candidate_key(key: CellKey) -> CandidateKey:
    """Return the name and the digest of a cell's candidate."""
    return key.candidate, key.digest


def complete_seeds(cells: Iterable[CellRecord], folds: int) -> set[int]:
    """Return the seeds of one candidate that have every fold.

    The score of an incomplete seed would be of other test rows.
    """
    counts = Counter(cell.key.seed for cell in cells)
    return {seed for seed, count in counts.items() if count == folds}


def mean_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _count_failures(
    failures: Iterable[FailureRecord], stored: Mapping[CandidateKey, Set[CellKey]]
) -> tuple[FailedCells, ...]:
    """Count each candidate's failed cells that are not stored, in the order of names."""
    failed: dict[CandidateKey, list[FailureRecord]] = defaultdict(list)
    for record in failures:
        candidate = candidate_key(record.key)
        if record.key not in stored.get(candidate, ()):
            failed[candidate].append(record)
    return tuple(
        FailedCells(
            name=name,
            digest=digest,
            kinds=tuple(sorted({record.kind for record in records})),
            failed=len(records),
            cells=len(records) + len(stored.get((name, digest), ())),
        )
        for (name, digest), records in sorted(failed.items())
    )


def summarize_seeds(values: Sequence[float]) -> Statistic:
    """Return mean and deviation of one value for each seed."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Statistic(fmean(values), deviation)


def rank_rows(rows: Iterable[Row], metric: str) -> tuple[Row, ...]:
    """Sort rows by a metric, the best first and those without a value last."""
    sign = 1 if METRICS[metric].direction == "lower" else -1

    def key(row: Row) -> tuple[float, str, str, str]:
        value = row.values[metric]
        score = sign * value.mean if value else math.inf
        return (score, row.candidate, row.difference, row.weights)

    return tuple(sorted(rows, key=key))


def _make_row(
    cells: Sequence[CellRecord],
    difference: str,
    rule: str,
    getters: Mapping[str, Getter],
    failed: int,
) -> Row:
    first = cells[0]
    return Row(
        candidate=first.key.candidate,
        digest=first.key.digest,
        kind=first.kind,
        stochastic=first.stochastic,
        difference=difference,
        weights=_describe_weights(first),
        stand_in=first.weights is not None and first.weights.source == "stand-in",
        parameters=first.parameters,
        cells=len(cells),
        seeds=len({cell.key.seed for cell in cells}),
        values={name: _summarize(cells, getter) for name, getter in getters.items()},
        tuning=first.tuning,
        label_f1=_label_f1(cells, rule),
        label_average_precision=_label_average_precision(cells),
        constant=all(cell.has_constant_predictions for cell in cells),
        failed=failed,
        mixed=mixed_environments(cells),
        cut_token_share=first.cut_token_share or 0.0,
    )


def _describe_weights(cell: CellRecord) -> str:
    """Return the label of the initial weights, or the train rows of a baseline if not all."""
    if cell.weights is not None:
        return cell.weights.label
    return f"fitted on {cell.fitted_rows:,} train rows" if cell.fitted_rows is not None else ""


def _summarize(cells: Sequence[CellRecord], getter: Getter) -> Statistic | None:
    """Average over the folds of each seed, then over seeds; None if a cell lacks the value."""
    by_seed: dict[int, list[float]] = defaultdict(list)
    for cell in cells:
        value = getter(cell)
        if value is None:
            return None
        by_seed[cell.key.seed].append(value)
    return summarize_seeds([fmean(values) for values in by_seed.values()])


def _label_f1(cells: Sequence[CellRecord], rule: str) -> tuple[float, ...]:
    """Return each label's mean over the cells whose fold has a positive row of the label."""
    by_label = zip(*(cell.per_label[rule] for cell in cells), strict=True)
    return tuple(mean_known(s.f1 for s in label if s.support) or 0.0 for label in by_label)


def _label_average_precision(cells: Sequence[CellRecord]) -> tuple[float | None, ...]:
    by_label = zip(*(cell.per_label[HALF] for cell in cells), strict=True)
    return tuple(mean_known(scores.average_precision for scores in label) for label in by_label)
