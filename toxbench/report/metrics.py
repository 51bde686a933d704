"""The table of metrics for ``--help``, ``toxbench metrics`` and the guides."""

import math
from textwrap import fill

from toxbench.evaluation.definitions import METRICS, Metric
from toxbench.plugin.contracts import Table

_DEFINITION_WIDTH = 46  # the table is then 100 characters wide


def metrics_table() -> Table:
    """Return the direction, range and definition of every metric; imports nothing heavy."""
    return Table(
        title="Metrics",
        headers=("metric", "better", "range", "definition"),
        rows=tuple(
            (name, metric.direction, _range(metric), fill(metric.definition, _DEFINITION_WIDTH))
            for name, metric in METRICS.items()
        ),
        notes=(
            "An undefined metric (for example, without a positive row) has no value. Division by "
            "zero gives 0.",
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
