"""Scores of the same candidates by the number of train rows, and a forecast for more rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from toxbench.errors import StorageError
from toxbench.evaluation.bootstrap import BootstrapScores, bootstrap, interval
from toxbench.evaluation.definitions import HALF, HEADLINES
from toxbench.evaluation.extrapolation import SIZES_NEEDED, extrapolate
from toxbench.ranking.build import build_leaderboard, complete_cells
from toxbench.ranking.cells import load_cells
from toxbench.ranking.pool import FoldPooler, ScoreNames
from toxbench.ranking.rows import CandidateKey, Row
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
    """A row of the leaderboard of one size, with its resampled scores."""

    train_rows: int
    row: Row
    resampled: BootstrapScores

    @property
    def point(self) -> CurvePoint:
        scores = {
            name: Estimate(mean, (error.low, error.high) if error else None)
            for name in CURVE_SCORES
            if (mean := self.row.mean(name)) is not None
            for error in [self.row.uncertainty.get(name)]
        }
        return CurvePoint(self.train_rows, scores)


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
    by_rows = {results[0].train_rows: results for results in sizes if results}
    candidates: dict[CandidateKey, list[_Result]] = {}
    for _, results in sorted(by_rows.items(), reverse=True):  # all train rows first
        for result in results:
            candidates.setdefault(result.row.key, []).insert(0, result)
    return tuple(_curve(results) for results in candidates.values() if len(results) > 1)


def _read_results(store: CellStore, full: ProtocolRecord) -> list[_Result]:
    """Read the results with one number of train rows, the mean over the folds.

    The same test rows are resampled for all sizes, but seeds are drawn for each: a seed draws
    other batches from other rows.
    """
    protocol, rows, cells = load_cells(store)
    if _tests(protocol) != _tests(full):
        raise StorageError(f"{store.folder} has other test rows than {full.name}; move it away")
    board = build_leaderboard(protocol, rows, cells)
    complete = complete_cells(cells, len(protocol.folds))
    pooler, needed = FoldPooler(protocol, rows), {HALF: ScoreNames(tuple(CURVE_SCORES))}
    pooled = {row.key: pooler.pool(complete[row.key], needed)[HALF] for row in board.rows}
    draws = bootstrap({key: scores.samples for key, scores in pooled.items()})
    train_rows = round(fmean(len(fold.train) for fold in protocol.folds))
    rng = np.random.default_rng(train_rows)
    return [
        _Result(train_rows, row, replace(scores, seed_weights=rng.permutation(scores.seed_weights)))
        for row in board.rows
        for scores in [draws[row.key]]
    ]


def _tests(protocol: ProtocolRecord) -> tuple[str, list[tuple[int, ...]]]:
    return protocol.data_fingerprint, [fold.test for fold in protocol.folds]


def _curve(results: Sequence[_Result]) -> LearningCurve:
    """Return the curve of one candidate from its results, the fewest train rows first."""
    measured, last = tuple(result.point for result in results), results[-1]
    curve = LearningCurve(last.row.name, measured)
    if len(results) < SIZES_NEEDED:
        return curve
    return replace(
        curve,
        check=_predict(results[:-1], last.train_rows),
        forecast=_predict(results, FORECAST_FACTOR * last.train_rows),
    )


def _predict(results: Sequence[_Result], target_rows: int) -> CurvePoint:
    """Extrapolate the scores that all results have, and each of their resamples."""
    rows, points = [result.train_rows for result in results], [result.point for result in results]
    scores: dict[str, Estimate] = {}
    for name in (n for n in CURVE_SCORES if all(n in point.scores for point in points)):
        estimates = [point.scores[name] for point in points]
        value = extrapolate(rows, np.array([e.value for e in estimates]), target_rows)
        ends = None
        if all(estimate.interval for estimate in estimates):
            draws = np.stack([result.resampled.scores(name) for result in results], axis=-1)
            ends = interval(extrapolate(rows, draws, target_rows))
        scores[name] = Estimate(float(value), ends)
    return CurvePoint(target_rows, scores)
