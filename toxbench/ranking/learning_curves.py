"""Scores of the same candidates by the number of train rows, and a forecast for more rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from toxbench.errors import StorageError
from toxbench.evaluation.bootstrap import (
    MIN_EFFECTIVE_UNITS,
    BootstrapScores,
    bootstrap,
    interval,
    measure_uncertainty,
)
from toxbench.evaluation.definitions import HALF, HEADLINES
from toxbench.evaluation.extrapolation import SIZES_NEEDED, extrapolate
from toxbench.evaluation.row_counts import VALUES
from toxbench.ranking.build import complete_cells
from toxbench.ranking.cells import load_cells
from toxbench.ranking.pool import FoldPooler, PooledScores, ScoreNames
from toxbench.ranking.rows import CandidateKey, Row, summarize_cells
from toxbench.store.cells import SUBSETS, CellStore, ProtocolRecord, stores_below

CURVE_SCORES: Mapping[str, str] = {**HEADLINES, "micro_average_precision": "micro AP"}  # -> title
FORECAST_FACTOR = 2  # train rows of the forecast, relative to all train rows


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval, which is None if there are too few groups of test rows."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class CurvePoint:
    """Scores of one candidate with a number of train rows; unknown scores are left out."""

    train_rows: int
    scores: Mapping[str, Estimate]


@dataclass(frozen=True)
class LearningCurve:
    """The scores of one candidate with at least two numbers of train rows.

    Attributes:
        candidate: its name on the leaderboard.
        measured: the fewest train rows first.
        check: forecast from all points but the last one, for the rows of the last one.
        forecast: from all points. None, as ``check``, with fewer than `SIZES_NEEDED` points.
    """

    candidate: str
    measured: tuple[CurvePoint, ...]
    check: CurvePoint | None = None
    forecast: CurvePoint | None = None


@dataclass(frozen=True)
class _Result:
    """Scores of one candidate with one number of train rows, and its resampled scores.

    ``resampled`` is None if there are too few groups of test rows.
    """

    row: Row
    point: CurvePoint
    resampled: BootstrapScores | None


def load_curves(store: CellStore) -> tuple[LearningCurve, ...]:
    """Read the curve of each candidate that is stored with several numbers of train rows.

    Curves are in the order of the leaderboard.

    Raises:
        StorageError: a file is damaged, or a subset is of other test rows.
    """
    subsets = stores_below(store.folder / SUBSETS)
    if not subsets:
        return ()
    protocol = store.protocol()
    sizes = [_read_results(store, protocol) for store in (*subsets, store)]
    by_rows = {results[0].point.train_rows: results for results in sizes if results}
    candidates: dict[CandidateKey, list[_Result]] = {}
    for _, results in sorted(by_rows.items(), reverse=True):  # all train rows first
        for result in results:
            candidates.setdefault(result.row.key, []).insert(0, result)
    return tuple(_curve(results) for results in candidates.values() if len(results) > 1)


def _read_results(store: CellStore, full: ProtocolRecord) -> list[_Result]:
    """Read the results with one number of train rows, the mean over the folds."""
    protocol, rows, cells = load_cells(store)
    if _tests(protocol) != _tests(full):
        raise StorageError(f"{store.folder} has other test rows than {full.name}; move it away")
    candidates = summarize_cells(protocol, (record for record, _ in cells)).rows
    complete = complete_cells(cells, len(protocol.folds))
    pooler, needed = FoldPooler(protocol, rows), {HALF: ScoreNames(tuple(CURVE_SCORES))}
    pooled = {row.key: pooler.pool(complete[row.key], needed)[HALF] for row in candidates}
    has_intervals = pooler.effective_units >= MIN_EFFECTIVE_UNITS
    draws = bootstrap({k: p.samples for k, p in pooled.items()}) if has_intervals else {}
    train_rows = round(fmean(len(fold.train) for fold in protocol.folds))
    return [_result(r, train_rows, pooled[r.key], draws.get(r.key)) for r in candidates]


def _result(
    row: Row, train_rows: int, pooled: PooledScores, resampled: BootstrapScores | None
) -> _Result:
    """Return scores as the leaderboard has them: ratios of counts are those of all folds."""
    scores: dict[str, Estimate] = {}
    for name in CURVE_SCORES:
        value = row.mean(name) if name in VALUES else float(pooled.test[name].mean())
        if value is not None:
            error = None if resampled is None else measure_uncertainty(resampled, name)
            scores[name] = Estimate(value, (error.low, error.high) if error else None)
    if resampled is not None:
        # All sizes have the same resampled test rows, but draws of seeds of their own: a seed
        # shuffles other rows.
        weights = np.random.default_rng(train_rows).permutation(resampled.seed_weights)
        resampled = replace(resampled, seed_weights=weights)
    return _Result(row, CurvePoint(train_rows, scores), resampled)


def _tests(protocol: ProtocolRecord) -> tuple[str, list[tuple[int, ...]]]:
    return protocol.data_fingerprint, [fold.test for fold in protocol.folds]


def _curve(results: Sequence[_Result]) -> LearningCurve:
    """Return the curve of one candidate from its results, the fewest train rows first."""
    measured = tuple(result.point for result in results)
    curve = LearningCurve(results[-1].row.name, measured)
    if len(results) < SIZES_NEEDED:
        return curve
    most_rows = measured[-1].train_rows
    return replace(
        curve,
        check=_predict(results[:-1], most_rows),
        forecast=_predict(results, FORECAST_FACTOR * most_rows),
    )


def _predict(results: Sequence[_Result], target_rows: int) -> CurvePoint:
    """Extrapolate the scores that all results have, and each of their resamples."""
    points = [result.point for result in results]
    rows = [point.train_rows for point in points]
    resampled = [result.resampled for result in results if result.resampled is not None]
    scores: dict[str, Estimate] = {}
    for name in (n for n in CURVE_SCORES if all(n in point.scores for point in points)):
        values, ends = np.array([point.scores[name].value for point in points]), None
        if resampled:
            draws = np.stack([size.scores(name) for size in resampled], axis=-1)
            ends = interval(extrapolate(rows, draws, target_rows))
        scores[name] = Estimate(float(extrapolate(rows, values, target_rows)), ends)
    return CurvePoint(target_rows, scores)
