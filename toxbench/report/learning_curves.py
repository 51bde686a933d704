"""The table of learning curves: measured scores and forecasts by the number of train rows."""

from collections.abc import Sequence

from toxbench.plugin.contracts import Table
from toxbench.ranking.learning_curves import CURVE_SCORES, CurvePoint, Curves, Estimate
from toxbench.report.tables import Record
from toxbench.util.text import escape_line

CURVE_TITLE = "Scores by number of train rows"
_NOTES = (
    "Brackets are 95 % intervals over test rows and seeds. They do not cover which train rows are "
    "in a subset, nor whether the error follows a power law.",
    "forecast: not measured. With three sizes or more, the error, 1 - score, is extrapolated by a "
    "power law, b * n^-c (Hestness et al. 2017, arXiv:1712.00409). (+0.010): the forecast from "
    "fewer rows minus the measured score.",
)


def curve_table(curves: Curves, notes: Sequence[str] = ()) -> Table:
    """Return the points of each curve; ``notes`` come first."""
    points = [(escape_line(name), point) for name, curve in curves for point in curve]
    return Table(
        title=CURVE_TITLE,
        headers=("candidate", "train rows", "kind", *CURVE_SCORES.values()),
        rows=tuple((name, *_texts(point)) for name, point in points),
        notes=(*map(escape_line, notes), *_NOTES),
        records=tuple({"candidate": name, **_record(point)} for name, point in points),
        keys=3,
    )


def _texts(point: CurvePoint) -> list[str]:
    scores = (point.scores.get(name) for name in CURVE_SCORES)
    return [str(point.train_rows), point.kind, *map(_text, scores)]


def _text(score: Estimate | None) -> str:
    if score is None:
        return "-"
    interval = " [{:.3f}, {:.3f}]".format(*score.interval) if score.interval else ""
    error = "" if score.error is None else f" ({score.error:+.3f})"
    return f"{score.value:.3f}{interval}{error}"


def _record(point: CurvePoint) -> Record:
    """Return a point as unrounded values."""
    record: Record = {"train_rows": point.train_rows, "kind": point.kind}
    for name in CURVE_SCORES:
        value, interval, error = point.scores.get(name, (None, None, None))
        low, high = interval or (None, None)
        record |= {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_error": error}
    return record
