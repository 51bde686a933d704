"""Scores of the same candidates by the number of train rows, and a forecast for more rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np

from toxbench.evaluation.bootstrap import (
    MIN_EFFECTIVE_UNITS,
    BootstrapScores,
    bootstrap,
    interval,
    measure_uncertainty,
)
from toxbench.evaluation.definitions import HALF, HEADLINES
from toxbench.evaluation.extrapolation import extrapolate
from toxbench.evaluation.row_counts import VALUES
from toxbench.ranking.build import complete_cells
from toxbench.ranking.cells import load_cells
from toxbench.ranking.pool import FoldPooler, ScoreNames
from toxbench.ranking.rows import CandidateKey, Row, summarize_cells
from toxbench.store.cells import SUBSETS, CellStore, stores_below
from toxbench.util.arrays import Floats

CURVE_SCORES: Mapping[str, str] = {**HEADLINES, "micro_average_precision": "micro AP"}  # -> title
MEASURED, CHECK, FORECAST = "measured", "forecast from fewer rows", "forecast"
_SIZES_NEEDED = 3  # of a forecast: with two, no size is left to check it with
_FACTOR = 2  # train rows of the forecast, relative to the most measured ones
Estimate = tuple[float, tuple[float, float] | None]  # score, and its 95 % interval


@dataclass(frozen=True)
class CurvePoint:
    """Scores of a candidate with a number of train rows (mean over folds).

    Attributes:
        kind: measured; forecast; or a forecast from all sizes but the largest one, for that one.
        train_rows: their number.
        scores: metric -> estimate, without unknown ones.
        errors: metric -> forecast minus measured score, if both are known.
    """

    kind: str
    train_rows: int
    scores: Mapping[str, Estimate]
    errors: Mapping[str, float] = field(default_factory=dict)


Curves = Mapping[str, Sequence[CurvePoint]]  # candidate -> points, measured ones first
_Result = tuple[Row, CurvePoint, BootstrapScores]


def load_curves(store: CellStore) -> Curves:
    """Read the scores of each candidate that is stored with several numbers of train rows.

    Candidates are in the order of the leaderboard, and sizes in ascending order.

    Raises:
        StorageError: a file is damaged.
    """
    subsets = stores_below(store.folder / SUBSETS)
    sizes = dict(map(_read_size, [*subsets, store])) if subsets else {}
    candidates: dict[CandidateKey, list[_Result]] = defaultdict(list)
    for _, results in sorted(sizes.items(), reverse=True):
        for result in results:
            candidates[result[0].key].insert(0, result)
    several = (results for results in candidates.values() if len(results) > 1)
    return {results[-1][0].name: _curve(results) for results in several}


def _read_size(store: CellStore) -> tuple[int, list[_Result]]:
    """Read the results with one number of train rows, and return them with that number."""
    protocol, rows, cells = load_cells(store)
    candidates = summarize_cells(protocol, (record for record, _ in cells)).rows
    complete, pooler = complete_cells(cells, len(protocol.folds)), FoldPooler(protocol, rows)
    needed = {HALF: ScoreNames(tuple(CURVE_SCORES))}
    pooled = {row.key: pooler.pool(complete[row.key], needed)[HALF] for row in candidates}
    resampled = bootstrap({key: scores.samples for key, scores in pooled.items()})
    size = round(fmean(len(fold.train) for fold in protocol.folds))
    return size, [(row, _measured(row, size, r := resampled[row.key]), r) for row in candidates]


def _measured(row: Row, train_rows: int, resampled: BootstrapScores) -> CurvePoint:
    """Return the scores as the leaderboard has them: ratios of counts are those of all folds."""
    scores: dict[str, Estimate] = {}
    for name in CURVE_SCORES:
        value = row.mean(name) if name in VALUES else float(resampled.observed[name].mean())
        error = measure_uncertainty(resampled, name)
        has_interval = resampled.effective_units >= MIN_EFFECTIVE_UNITS
        if value is not None:
            scores[name] = value, (error.low, error.high) if has_interval else None
    return CurvePoint(MEASURED, train_rows, scores)


def _curve(results: Sequence[_Result]) -> list[CurvePoint]:
    measured = [point for _, point, _ in results]
    if len(measured) < _SIZES_NEEDED:
        return measured
    last = measured[-1]
    check = _predict(CHECK, results[:-1], last.train_rows)
    errors = {n: check.scores[n][0] - last.scores[n][0] for n in check.scores if n in last.scores}
    forecast = _predict(FORECAST, results, _FACTOR * last.train_rows)
    return [*measured, replace(check, errors=errors), forecast]


def _predict(kind: str, results: Sequence[_Result], target_rows: int) -> CurvePoint:
    """Extrapolate the scores that all results have, and each of their resamples."""
    points = [point for _, point, _ in results]
    rows = [point.train_rows for point in points]
    scores: dict[str, Estimate] = {}
    for name in (n for n in CURVE_SCORES if all(n in point.scores for point in points)):
        values = [point.scores[name][0] for point in points]
        draws = np.stack([_draw(point, r, name) for _, point, r in results], axis=-1)
        ends = interval(extrapolate(rows, draws, target_rows))
        has_interval = all(point.scores[name][1] for point in points)
        value = float(extrapolate(rows, np.array(values), target_rows))
        scores[name] = value, ends if has_interval else None
    return CurvePoint(kind, target_rows, scores)


def _draw(point: CurvePoint, resampled: BootstrapScores, name: str) -> Floats:
    """Return resampled scores, ``[resample]``: of the same rows for all sizes, but other seeds.

    A seed shuffles other rows if there are more of them.
    """
    weights = np.random.default_rng(point.train_rows).permutation(resampled.seed_weights)
    return replace(resampled, seed_weights=weights).scores(name)
