"""``toxbench speed``: what this device can afford, and what others would take."""

from typing import Any

import click

from toxbench.cli.options import (
    column_options,
    comma_list,
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
@click.option(
    "--against",
    metavar="A,B",
    callback=comma_list,
    help="Peers to time in turn: trainer (transformers' Trainer at its best, and with its "
    "defaults), trainer-default, notebook. [none]",
)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
              help="Timed runs of each.")  # fmt: skip
@click.option(
    "--shape",
    metavar="H,L,A",
    callback=comma_list,
    help="Random weights with hidden size H, L layers and A heads; bert-base is 768,12,12.",
)
@settings_options(TrainSettings, without=tuple({*TrainSettings.model_fields} - {*_OFFERED}))
@format_option
@click.option("--json", "as_json", is_flag=True, help="As --format json, and nothing on stderr.")
@click.option("--quiet", is_flag=True, help="Print the tables and nothing else.")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def speed(**values: Any) -> None:
    """Measure how fast backbones are trained and scored on this device.

    Nothing is written into results. What share of the device's matrix peak was reached is kept in
    the cache, and makes the time that toxbench run expects a measured one. Each timed run trains
    on all train rows for three epochs (--epochs); the machine should have nothing else to do.
    """
    from toxbench.benchmark.check import check_settings
    from toxbench.plugin.registry import Registry
    from toxbench.speed.request import speed_request

    request = speed_request(values["against"] or (), values["repeats"], values["shape"])
    # No validation rows: they are no part of training.
    chosen = {**values, "epochs": values["epochs"] or _EPOCHS, "validation_size": 0.0}
    settings = settings_from({**chosen, "config": None})
    registry = Registry.discover(settings.plugins)
    name = "json" if values["as_json"] else values["name"]
    registry.report_format(name or "plain")  # refused now, not after minutes
    check_settings(settings, registry)
    # Only now: torch and transformers take seconds to import.
    from toxbench.cli.feedback import Plain, Quiet
    from toxbench.cli.show import print_tables
    from toxbench.report.speed import speed_table, terminal_tables
    from toxbench.speed.measure import measure, remembered
    from toxbench.training.remembered import recall, remember

    feedback = Quiet() if values["quiet"] or values["as_json"] else Plain()
    problems = [*map(str, registry.problems), *filter(None, [recall().problem])]
    for problem in problems:
        feedback.warn(problem)
    records = list(measure(settings, request, registry, feedback.say))
    tables = [speed_table(records)] if name else terminal_tables(records)
    print_tables(tables, registry, name)
    remember(remembered(records))
