"""``toxbench metrics``: what is measured, in words. Imports nothing heavy."""

import click

from toxbench.cli.options import format_option, plugins_option


@click.command(short_help="List every metric with direction, range and definition.")
@format_option
@plugins_option
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def metrics(name: str | None, plugins: tuple[str, ...] | None, debug: bool) -> None:
    """Print every metric with its direction, range and definition."""
    from toxbench.cli.console import print_tables
    from toxbench.plugin.registry import Registry
    from toxbench.report.metrics import metrics_table

    print_tables([metrics_table()], Registry.discover(plugins), name)


class WithMetrics(click.Command):
    """A command whose help ends with the metrics."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table as it is; paragraphs would be filled anew. Help runs no foreign code."""
        super().format_epilog(ctx, formatter)
        formatter.write(f"\n{_metrics_text()}\n")


def _metrics_text() -> str:
    from toxbench.plugin.registry import Registry
    from toxbench.report.metrics import metrics_table

    return Registry.discover(()).report_format("plain").item.render(metrics_table()).strip()
