"""``toxbench metrics``: what is measured, in words. Imports nothing heavy."""

import click


@click.command()
@click.option("--format", "name", metavar="NAME", help="github, markdown, latex, csv, json, html.")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def metrics(name: str | None, debug: bool) -> None:
    """Print every metric with its direction, range and definition."""
    click.echo(metrics_text(name or "plain"))


class WithMetrics(click.Command):
    """A command whose help ends with the metrics."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table as it is; paragraphs would be filled anew."""
        super().format_epilog(ctx, formatter)
        formatter.write(f"\n{metrics_text('plain')}\n")


def metrics_text(name: str) -> str:
    """Write the table of metrics in a report format.

    Raises:
        SettingsError: there is no such format.
        PluginError: its plugin is broken.
    """
    from toxbench.plugin.registry import Registry
    from toxbench.report.metrics import metrics_table

    return Registry.discover().report_format(name).item.render(metrics_table()).strip()
