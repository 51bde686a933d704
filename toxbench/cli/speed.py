"""``toxbench speed``: how fast backbones are on this device."""

from typing import Any

import click

from toxbench.cli.options import (
    column_options,
    format_option,
    settings_from,
    settings_options,
    training_options,
)
from toxbench.settings import TrainSettings

_OFFERED = ("epochs", "batch_size", "max_length", "precision")
_EPOCHS = 3


@click.command(short_help="Measure how fast backbones are on this device.")
@training_options
@column_options
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
              help="Timed runs of each backbone.")  # fmt: skip
@settings_options(TrainSettings, without=tuple({*TrainSettings.model_fields} - {*_OFFERED}))
@format_option
@click.option("--json", "as_json", is_flag=True, help="As --format json, and nothing on stderr.")
@click.option("--quiet", is_flag=True, help="Print the table and nothing else.")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def speed(**values: Any) -> None:
    """Measure how fast backbones are trained and scored on this device.

    Nothing is stored. Each timed run trains on all train rows for three epochs (--epochs); the
    machine should have nothing else to do.
    """
    from toxbench.benchmark.validate import resolve
    from toxbench.plugin.registry import Registry

    # No validation rows: they are no part of training.
    chosen = {**values, "epochs": values["epochs"] or _EPOCHS, "validation_size": 0.0}
    settings = settings_from({**chosen, "config": None})
    registry = Registry.discover(settings.plugins)
    name = "json" if values["as_json"] else values["name"]
    registry.report_format(name or "plain")  # refused now, not after minutes
    run = resolve(settings, registry)
    # Only now: torch and transformers take seconds to import.
    from toxbench.cli.console import print_tables
    from toxbench.cli.progress import LogProgress, QuietProgress
    from toxbench.report.speed import speed_table
    from toxbench.speed.measure import measure

    feedback = QuietProgress() if values["quiet"] or values["as_json"] else LogProgress()
    for problem in registry.problems:
        feedback.warn(str(problem))
    records = list(measure(run, values["repeats"], feedback.echo))
    print_tables([speed_table(records)], registry, name)
