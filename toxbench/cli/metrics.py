"""``toxbench metrics``: what is measured, in words. Imports nothing heavy."""

import math
from textwrap import fill

import click
import cloup

from toxbench.cli.options import table_options
from toxbench.evaluation.definitions import METRICS, Metric
from toxbench.plugin.contracts import Table
from toxbench.plugin.registry import Registry

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


@cloup.command(short_help="List every metric with its definition.")
@table_options
def metrics(format_name: str | None, plugins: tuple[str, ...] | None) -> None:
    """Print every metric with its direction, range and definition."""
    from toxbench.cli.output import print_tables

    registry = Registry.with_item("formats", format_name or "plain", plugins)
    print_tables([metrics_table()], registry, format_name)


class WithMetrics(cloup.Command):
    """A command whose help ends with the metrics."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without wrapping it, and without loading plugins."""
        super().format_epilog(ctx, formatter)
        formatter.write(f"\n{_metrics_text()}\n")


def _metrics_text() -> str:

    return Registry.built_in().report_format("plain").item.render(metrics_table()).strip()
