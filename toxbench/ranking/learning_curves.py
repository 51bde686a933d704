"""Scores of the same candidates by the number of train rows, and a forecast for more rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

import numpy as np

from toxbench.evaluation.bootstrap import BootstrapScores, bootstrap, interval
from toxbench.evaluation.curves import extrapolate
from toxbench.evaluation.definitions import HALF, HEADLINES
from toxbench.ranking.build import build_leaderboard, complete_cells
from toxbench.ranking.cells import FoldPooler, ScoreNames, load_cells
from toxbench.ranking.rows import CandidateKey, Row
from toxbench.store.cells import SUBSETS, CellStore, stores_below

CURVE_SCORES: Mapping[str, str] = {**HEADLINES, "micro_average_precision": "micro AP"}  # -> title
MEASURED, CHECK, FORECAST = "measured", "forecast from fewer rows", "forecast"  # kinds of points
_SIZES_NEEDED = 3  # of a forecast: with two, no size is left to check it with
_FACTOR = 2  # train rows of the forecast, relative to the most measured ones


class Estimate(NamedTuple):
    """A score, its 95 % interval if there is one, and the error of a forecast if it is known."""

    value: float
    interval: tuple[float, float] | None
    error: float | None = None


@dataclass(frozen=True)
class CurvePoint:
    """The known scores of a candidate with a number of train rows, the mean over folds."""

    kind: str
    train_rows: int
    scores: Mapping[str, Estimate]


Curves = Sequence[tuple[str, Sequence[CurvePoint]]]  # candidate; measured points, check, forecast
_Result = tuple[Row, CurvePoint, BootstrapScores]


def load_curves(store: CellStore) -> Curves:
    """Read the scores of each candidate that is stored with several numbers of train rows.

    Candidates are in the order of the leaderboard. Raises `StorageError` for a damaged file.
    """
    subsets = stores_below(store.folder / SUBSETS)
    sizes = dict(map(_read_size, [*subsets, store])) if subsets else {}
    candidates: dict[CandidateKey, list[_Result]] = defaultdict(list)
    for _, results in sorted(sizes.items(), reverse=True):
        for result in results:
            candidates[result[0].key].insert(0, result)
    return [(r[-1][0].name, _curve(r)) for r in candidates.values() if len(r) > 1]


def _read_size(store: CellStore) -> tuple[int, list[_Result]]:
    """Read the results with one number of train rows, and return them with that number."""
    protocol, rows, cells = load_cells(store)
    board, pooler = build_leaderboard(protocol, rows, cells), FoldPooler(protocol, rows)
    complete = complete_cells(cells, len(protocol.folds))
    needed = {HALF: ScoreNames(tuple(CURVE_SCORES))}
    pooled = {row.key: pooler.pool(complete[row.key], needed)[HALF] for row in board.rows}
    draws = bootstrap({key: scores.samples for key, scores in pooled.items()})
    size = round(fmean(len(fold.train) for fold in protocol.folds))
    results: list[_Result] = []
    for row in board.rows:
        # Sizes have the same resampled test rows, but other seeds: a seed shuffles other rows.
        weights = np.random.default_rng(size).permutation(draws[row.key].seed_weights)
        resampled = replace(draws[row.key], seed_weights=weights)
        results.append((row, _measured(row, size), resampled))
    return size, results


def _measured(row: Row, train_rows: int) -> CurvePoint:
    scores: dict[str, Estimate] = {}
    for name in CURVE_SCORES:
        value, error = row.mean(name), row.uncertainty.get(name)
        if value is not None:
            scores[name] = Estimate(value, (error.low, error.high) if error else None)
    return CurvePoint(MEASURED, train_rows, scores)


def _curve(results: Sequence[_Result]) -> list[CurvePoint]:
    measured = [point for _, point, _ in results]
    if len(measured) < _SIZES_NEEDED:
        return measured
    last = measured[-1]
    check = _predict(results[:-1], CHECK, last.train_rows)
    errors = {n: e._replace(error=e.value - last.scores[n].value) for n, e in check.scores.items()}
    forecast = _predict(results, FORECAST, _FACTOR * last.train_rows)
    return [*measured, replace(check, scores=errors), forecast]


def _predict(results: Sequence[_Result], kind: str, target_rows: int) -> CurvePoint:
    """Extrapolate each score and its resamples."""
    rows = [point.train_rows for _, point, _ in results]
    scores: dict[str, Estimate] = {}
    for name, estimate in results[0][1].scores.items():
        values = np.array([point.scores[name].value for _, point, _ in results])
        draws = np.stack([draws.scores(name) for _, _, draws in results], axis=-1)
        ends = interval(extrapolate(rows, draws, target_rows)) if estimate.interval else None
        scores[name] = Estimate(float(extrapolate(rows, values, target_rows)), ends)
    return CurvePoint(kind, target_rows, scores)
