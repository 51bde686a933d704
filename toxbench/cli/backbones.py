"""``toxbench backbones``: what is registered. Does not import torch."""

import click

from toxbench.cli.options import plugins_option


@click.command()
@plugins_option
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def backbones(plugins: tuple[str, ...] | None, debug: bool) -> None:
    """List backbones: where they come from, and what weights there are on this machine."""
    from tabulate import tabulate

    from toxbench.plugin.registry import Registry
    from toxbench.report.words import millions
    from toxbench.training.weights import parameters_here

    registry = Registry.discover(plugins)
    rows = []
    for name, registered in registry.backbones.items():
        source, parameters = parameters_here(registered.item)
        stand_in = registered.item.stand_in
        here = f"stand-in: {stand_in.note}" if source == "stand-in" and stand_in else source
        rows.append(
            (name, registered.item.checkpoint, here, millions(parameters), registered.distribution)
        )
    headers = ("backbone", "checkpoint", "weights here", "parameters", "from")
    click.echo(tabulate(rows, headers=headers, disable_numparse=True))
    baselines = [f"{name} ({entry.distribution})" for name, entry in registry.baselines.items()]
    click.echo(f"\nBaselines: {', '.join(baselines) or 'none'}")
    click.echo("Parameters are those of the pretrained weights here, without a new head.")
    for problem in registry.problems:
        click.echo(f"toxbench: warning: {problem}", err=True)
