"""``toxbench behaviour``: checks of stored models on cases with known labels."""

from typing import Any

import click
import cloup

from toxbench.cli.options import (
    DATA,
    OUTPUT,
    FilePath,
    device_option,
    results_argument,
    table_options,
    terms_option,
    thresholds_option,
)
from toxbench.config import results_folder
from toxbench.plugin.registry import Registry


@cloup.command(short_help="Check stored models on cases with known labels.")
@results_argument
@DATA.option(
    "--cases", type=FilePath(), metavar="FILE",
    help="Table of text, functionality and expected labels. [a short English suite]",
)  # fmt: skip
@DATA.option("--label", metavar="NAME", help="Label that the column expected is for.")
@terms_option
@OUTPUT.option(
    "--table", type=click.Choice(["cases", "changes"]), default="cases", show_default=True,
    help="Cases that pass, or labels that flip when the text changes.",
)  # fmt: skip
@thresholds_option("Which of a model's thresholds to use.")
@device_option
@table_options
def behaviour(**values: Any) -> None:
    """Check the best saved model of each candidate on cases, of which no text is printed."""
    from toxbench.cli.output import print_tables
    from toxbench.data.groups import read_terms
    from toxbench.inference import behaviour as checks
    from toxbench.ranking.build import check_labels
    from toxbench.store.cells import find_store
    from toxbench.training.device import choose_device

    registry = Registry.discover(values["plugins"])
    store, terms = find_store(values["results"] or results_folder()), read_terms(values["terms"])
    labels, label = store.protocol().labels, values["label"]
    check_labels(labels, "--label", [] if label is None else [label])
    cases = checks.read_cases(values["cases"] or checks.SHIPPED, labels, label, terms)
    device = choose_device(values["device"] or "auto", "fp32")
    models = checks.load_predictors(store, registry, device, values["rule"])
    if values["table"] == "cases":
        table = checks.case_table(models, cases)
    else:
        table = checks.change_table(models, cases, terms)
    print_tables([table], registry, values["format_name"])
