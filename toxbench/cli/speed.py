"""``toxbench speed``: how fast backbones are on this device."""

import logging
from typing import Any

import click
import cloup

from toxbench.cli.options import (
    OUTPUT,
    RUN_TABLE,
    TRAINING,
    backbones_option,
    column_options,
    data_option,
    debug_option,
    device_option,
    format_option,
    plugins_option,
    settings_from,
    settings_options,
    weights_option,
)
from toxbench.plugin.registry import Registry
from toxbench.settings import TrainSettings

_TRAINING_OPTIONS = {"epochs", "batch_size", "max_length", "precision"}
_EPOCHS = 3


@cloup.command(short_help="Measure how fast backbones train on this device.")
@data_option(RUN_TABLE)
@column_options
@backbones_option
@weights_option
@plugins_option
@settings_options(TrainSettings, TRAINING, (*({*TrainSettings.model_fields} - _TRAINING_OPTIONS),))
@TRAINING.option(
    "--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
    help="Timed runs of each backbone.",
)  # fmt: skip
@OUTPUT.option("--quiet", is_flag=True, help="Print only the table.")
@format_option
@debug_option
@device_option
def speed(**values: Any) -> None:
    """Measure how fast backbones are trained and scored on this device.

    Nothing is stored. Each timed run trains on all train rows for three epochs (--epochs); the
    machine should have nothing else to do.
    """
    from toxbench.benchmark.validate import resolve

    # Without validation rows and a probe, which would be timed as well.
    changes = {
        "epochs": values["epochs"] or _EPOCHS, "validation_size": 0.0, "head_init": "random"
    }  # fmt: skip
    settings = settings_from({**values, **changes})
    registry = Registry.discover(settings.plugins)
    format_name = values["format_name"]
    registry.report_format(format_name or "plain")  # raises before minutes of work
    run = resolve(settings, registry)
    # Imported here, because torch and transformers take seconds.
    from toxbench.benchmark.progress import TextProgress
    from toxbench.cli.output import print_from, print_tables
    from toxbench.speed.measure import measure, speed_table
    from toxbench.store.cache import use_cache

    is_quiet = values["quiet"] or format_name is not None
    feedback = TextProgress(print_from(logging.ERROR if is_quiet else logging.INFO))
    for problem in registry.problems:
        feedback.warn(str(problem))
    with use_cache():
        records = list(measure(run, values["repeats"], feedback.echo))
    print_tables([speed_table(records)], registry, format_name)
