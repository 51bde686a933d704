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
    from toxbench.cli.output import print_tables
    from toxbench.plugin.contracts import Table
    from toxbench.training.weights import describe_local_weights
    from toxbench.util.text import escape_line, format_millions

    registry = Registry.discover(plugins)
    rows = []
    for name, registered in registry.backbones.items():
        backbone = registered.item
        weights, parameters = describe_local_weights(backbone)
        if weights == "stand-in" and backbone.stand_in:
            weights = f"stand-in: {backbone.stand_in.note}"
        row = (name, backbone.checkpoint or "none", weights, format_millions(parameters))
        rows.append(tuple(map(escape_line, (*row, registered.distribution))))
    headers = ("backbone", "checkpoint", "weights here", "parameters", "from")
    print_tables([Table("", headers, tuple(rows), (), ())], registry, None)
    baselines = [
        f"{name} ({'on request, ' if entry.item.on_request else ''}{entry.distribution})"
        for name, entry in registry.baselines.items()
    ]
    echo(f"\nBaselines: {', '.join(baselines) or 'none'}")
    echo("Parameters are those of the pretrained weights here, without a new head.")
    for problem in registry.problems:
        echo(f"toxbench: warning: {escape_line(str(problem))}", err=True, style="warning")
