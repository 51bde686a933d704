"""The table of learning curves: measured scores and forecasts by the number of train rows."""

from collections.abc import Iterator, Sequence

from toxbench.plugin.contracts import Table
from toxbench.ranking.learning_curves import CURVE_SCORES, CurvePoint, Estimate, LearningCurve
from toxbench.report.tables import Record
from toxbench.util.text import escape_line, format_value

CURVE_TITLE = "Scores by number of train rows"
_MEASURED, _CHECK, _FORECAST = "measured", "forecast from fewer rows", "forecast"
_NOTES = (
    "Brackets are 95 % intervals over test rows and seeds. They do not cover which train rows are "
    "in a subset, nor whether the error follows a power law.",
)
_FORECAST_NOTE = (
    "forecast: not measured. The error, 1 - score, is extrapolated by a power law of the train "
    "rows, b * n^-c (Hestness et al. 2017, arXiv:1712.00409). (error): the forecast from fewer "
    "rows minus the measured score, its error at the last known size."
)
_NO_FORECAST_NOTE = "No forecast: it needs three sizes of the train part."


def curve_table(curves: Sequence[LearningCurve], notes: Sequence[str] = ()) -> Table:
    """Return the measured points of each curve, then its forecasts; notes are put first."""
    points = [(curve, *point) for curve in curves for point in _points(curve)]
    forecast = _FORECAST_NOTE if any(c.forecast for c in curves) else _NO_FORECAST_NOTE
    return Table(
        title=CURVE_TITLE,
        headers=("candidate", "train rows", "kind", *CURVE_SCORES.values()),
        rows=tuple(
            (escape_line(curve.candidate), str(point.train_rows), kind,
             *(_text(curve, kind, point, name) for name in CURVE_SCORES))
            for curve, kind, point in points
        ),
        notes=(*map(escape_line, notes), *_NOTES, forecast),
        records=tuple(_record(*point) for point in points),
        keys=3,
    )  # fmt: skip


def _points(curve: LearningCurve) -> Iterator[tuple[str, CurvePoint]]:
    """Yield the kind of each point, and the point."""
    yield from ((_MEASURED, point) for point in curve.measured)
    forecasts = ((_CHECK, curve.check), (_FORECAST, curve.forecast))
    yield from ((kind, point) for kind, point in forecasts if point is not None)


def _error(curve: LearningCurve, kind: str, name: str, estimate: Estimate) -> float | None:
    """Return the error of a forecast whose rows were measured as well."""
    measured = curve.measured[-1].scores.get(name) if kind == _CHECK else None
    return None if measured is None else estimate.value - measured.value


def _text(curve: LearningCurve, kind: str, point: CurvePoint, name: str) -> str:
    estimate = point.scores.get(name)
    if estimate is None:
        return "-"
    text = format_value(estimate.value)
    if estimate.interval is not None:
        text += " [{:.3f}, {:.3f}]".format(*estimate.interval)
    error = _error(curve, kind, name, estimate)
    return text if error is None else f"{text} (error {error:+.3f})"


def _record(curve: LearningCurve, kind: str, point: CurvePoint) -> Record:
    """Return a point as unrounded values."""
    record: Record = {
        "candidate": escape_line(curve.candidate), "train_rows": point.train_rows, "kind": kind
    }  # fmt: skip
    for name in CURVE_SCORES:
        estimate = point.scores.get(name)
        low, high = (estimate.interval if estimate else None) or (None, None)
        record |= {name: estimate.value if estimate else None}
        record |= {f"{name}_low": low, f"{name}_high": high}
        record[f"{name}_error"] = _error(curve, kind, name, estimate) if estimate else None
    return record
