"""The metrics as a table, for ``--help``, for ``toxbench metrics`` and for the README."""

import math
from textwrap import fill

from toxbench.evaluation.definitions import METRICS, Metric
from toxbench.plugin.contracts import Table

_DEFINITION_WIDTH = 46  # the whole table is then 100 characters wide


def metrics_table() -> Table:
    """Return every metric with direction, range and definition; needs nothing heavy."""
    return Table(
        title="Metrics",
        headers=("metric", "better", "range", "definition"),
        rows=tuple(
            (name, metric.direction, _range(metric), fill(metric.definition, _DEFINITION_WIDTH))
            for name, metric in METRICS.items()
        ),
        notes=(
            "Where a metric is undefined (no positive row, say) there is no number; a division by "
            "zero is 0.",
        ),
        records=tuple(
            {
                "metric": name,
                "better": metric.direction,
                "low": metric.low,
                "high": None if math.isinf(metric.high) else metric.high,
                "definition": metric.definition,
            }
            for name, metric in METRICS.items()
        ),
    )


def _range(metric: Metric) -> str:
    if math.isinf(metric.high):
        return f"{metric.low:g} or more"
    return f"{metric.low:g} to {metric.high:g}"
