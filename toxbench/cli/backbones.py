"""``toxbench backbones``: what is registered. Does not import torch."""

import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import debug_option, plugins_option
from toxbench.plugin.registry import Registry


@cloup.command(short_help="List backbones and their weights on this machine.")
@plugins_option
@debug_option
def backbones(plugins: tuple[str, ...] | None) -> None:
    """List backbones, their plugins, and their weights on this machine."""
    from toxbench.cli.tables import print_tables
    from toxbench.plugin.contracts import Table
    from toxbench.training.weights import describe_local_weights
    from toxbench.util.text import escape_line, format_millions

    registry = Registry.discover(plugins)
    rows = []
    for name, registered in registry.backbones.items():
        source, parameters = describe_local_weights(registered.item)
        stand_in = registered.item.stand_in
        here = f"stand-in: {stand_in.note}" if source == "stand-in" and stand_in else source
        rows.append(
            (
                name,
                escape_line(registered.item.checkpoint),
                escape_line(here),
                format_millions(parameters),
                escape_line(registered.distribution),
            )
        )
    headers = ("backbone", "checkpoint", "weights here", "parameters", "from")
    print_tables([Table("", headers, tuple(rows), (), ())], registry, None)
    baselines = [f"{name} ({entry.distribution})" for name, entry in registry.baselines.items()]
    echo(f"\nBaselines: {', '.join(baselines) or 'none'}")
    echo("Parameters are those of the pretrained weights here, without a new head.")
    for problem in registry.problems:
        echo(f"toxbench: warning: {escape_line(str(problem))}", err=True, style="warning")
