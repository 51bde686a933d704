"""``toxbench metrics``: what is measured, in words. Imports nothing heavy."""

import click
import cloup

from toxbench.cli.options import table_options
from toxbench.plugin.registry import Registry


@cloup.command(short_help="List every metric with its definition.")
@table_options
def metrics(format_name: str | None, plugins: tuple[str, ...] | None) -> None:
    """Print every metric with its direction, range and definition."""
    from toxbench.cli.tables import print_tables
    from toxbench.report.metrics import metrics_table

    registry = Registry.with_item("formats", format_name or "plain", plugins)
    print_tables([metrics_table()], registry, format_name)


class WithMetrics(cloup.Command):
    """A command whose help ends with the metrics."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without wrapping it, and without loading plugins."""
        super().format_epilog(ctx, formatter)
        formatter.write(f"\n{_metrics_text()}\n")


def _metrics_text() -> str:
    from toxbench.report.metrics import metrics_table

    return Registry.built_in().report_format("plain").item.render(metrics_table()).strip()
