"""``toxbench metrics``: what is measured, in words. Imports nothing heavy."""

import click

from toxbench.cli.options import format_option, plugins_option
from toxbench.cli.output import say


@click.command()
@format_option
@plugins_option
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def metrics(name: str | None, plugins: tuple[str, ...] | None, debug: bool) -> None:
    """Print every metric with its direction, range and definition."""
    say(metrics_text(name or "plain", plugins))


class WithMetrics(click.Command):
    """A command whose help ends with the metrics."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table as it is; paragraphs would be filled anew. Help runs no foreign code."""
        super().format_epilog(ctx, formatter)
        formatter.write(f"\n{metrics_text('plain', ())}\n")


def metrics_text(name: str, plugins: tuple[str, ...] | None) -> str:
    """Write the table of metrics in a report format.

    Args:
        name: of the format.
        plugins: as `Registry.discover`.

    Raises:
        SettingsError: there is no such format or plugin.
        PluginError: its plugin is broken.
    """
    from toxbench.plugin.registry import Registry
    from toxbench.report.metrics import metrics_table

    return Registry.discover(plugins).report_format(name).item.render(metrics_table()).strip()
