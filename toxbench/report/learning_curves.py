"""The table of learning curves: measured scores and forecasts by the number of train rows."""

from collections.abc import Sequence

from toxbench.plugin.contracts import Table
from toxbench.ranking.learning_curves import CURVE_SCORES, FORECAST, CurvePoint, Curves
from toxbench.report.tables import Record
from toxbench.util.text import escape_line

CURVE_TITLE = "Scores by number of train rows"
_INTERVAL_NOTE = (
    "Brackets are 95 % intervals over test rows and seeds. They do not cover which train rows are "
    "in a subset, nor whether the error follows a power law."
)
_FORECAST_NOTE = (
    "forecast: not measured. The error, 1 - score, is extrapolated by b * n^-c, a power law of the "
    "train rows (Hestness et al. 2017, arXiv:1712.00409). (error): the forecast from fewer rows "
    "minus the measured score, its error at the last known size."
)
_NO_FORECAST_NOTE = "No forecast: it needs three sizes."


def curve_table(curves: Curves, notes: Sequence[str] = ()) -> Table:
    """Return the points of each curve; ``notes`` come before its own."""
    points = [(escape_line(name), point) for name, curve in curves.items() for point in curve]
    has_forecast = any(point.kind == FORECAST for _, point in points)
    own_notes = (_INTERVAL_NOTE, _FORECAST_NOTE if has_forecast else _NO_FORECAST_NOTE)
    return Table(
        title=CURVE_TITLE,
        headers=("candidate", "train rows", "kind", *CURVE_SCORES.values()),
        rows=tuple(
            (name, str(point.train_rows), point.kind, *(_text(point, n) for n in CURVE_SCORES))
            for name, point in points
        ),
        notes=(*map(escape_line, notes), *own_notes),
        records=tuple({"candidate": name, **_record(point)} for name, point in points),
        keys=3,
    )


def _text(point: CurvePoint, name: str) -> str:
    if name not in point.scores:
        return "-"
    value, ends = point.scores[name]
    interval = " [{:.3f}, {:.3f}]".format(*ends) if ends else ""
    error = f" (error {point.errors[name]:+.3f})" if name in point.errors else ""
    return f"{value:.3f}{interval}{error}"


def _record(point: CurvePoint) -> Record:
    """Return a point as unrounded values."""
    record: Record = {"train_rows": point.train_rows, "kind": point.kind}
    for name in CURVE_SCORES:
        value, ends = point.scores.get(name, (None, None))
        low, high = ends or (None, None)
        record |= {name: value, f"{name}_low": low, f"{name}_high": high}
        record[f"{name}_error"] = point.errors.get(name)
    return record
