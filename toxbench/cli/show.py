"""``toxbench show``: everything that is stored of one candidate."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import (
    OUTPUT,
    debug_option,
    format_option,
    plugins_option,
    results_argument,
)
from toxbench.errors import PluginError, SettingsError

if TYPE_CHECKING:
    from toxbench.plugin.registry import Registry
    from toxbench.report.candidate import Candidate
    from toxbench.settings import TrainSettings
    from toxbench.store.cells import CellStore

_TABLES = ("summary", "settings", "cells", "curves", "labels", "thresholds", "failures")


@cloup.command(short_help="Print all that is stored of one candidate.")
@cloup.argument("name", metavar="NAME")
@results_argument
@OUTPUT.option(
    "--table", "which", type=click.Choice(_TABLES), help="Print only this table; csv needs it."
)
@format_option
@plugins_option
@debug_option
def show(
    name: str,
    results: Path | None,
    which: str | None,
    format_name: str | None,
    plugins: tuple[str, ...] | None,
) -> None:
    """Print all that is stored of the candidate NAME, named as on the leaderboard.

    Settings, cost, learning curves, labels, thresholds, and failed cells with their reasons.
    """
    from toxbench.cli.tables import print_tables
    from toxbench.plugin.registry import Registry
    from toxbench.ranking.build import load_leaderboard
    from toxbench.ranking.cells import load_cells, load_failures
    from toxbench.report.candidate import TABLES, find_candidate
    from toxbench.store.cells import find_store

    if format_name == "csv" and which is None:
        raise SettingsError(f"csv holds one table; choose with --table {'|'.join(_TABLES)}")
    registry = Registry.discover(plugins)
    render = registry.report_format(format_name or "plain").item.render
    store = find_store(results or Path("results"))
    failures = load_failures(store)
    records = [record for record, _ in load_cells(store)[2]]
    found = find_candidate(load_leaderboard(store), records, failures, name)
    found = replace(found, references=_references(found, store, registry))
    wanted = {key: make(found) for key, make in TABLES.items() if which in {None, key}}
    if format_name == "json" and which is None:
        echo(
            json.dumps({key: json.loads(render(table)) for key, table in wanted.items()}, indent=2)
        )
    else:
        said = [table for key, table in wanted.items() if table.rows or key == which]
        print_tables(said, registry, format_name)


def _references(
    found: "Candidate", store: "CellStore", registry: "Registry"
) -> "dict[str, TrainSettings]":
    """Return the default settings, where its plugin is here, and the tuned ones, if there are."""
    from toxbench.config import build_settings
    from toxbench.settings import TrainSettings
    from toxbench.store.trials import find_tuned

    first = found.cells[0] if found.cells else None
    if first is None or first.weights is None:
        return {}
    references = {}
    try:
        backbone = registry.backbone(first.key.candidate).item
    except (PluginError, SettingsError):  # results outlive the plugin that made them
        backbone = None
    if backbone is not None:
        layers: list[Mapping[str, Any]] = [backbone.defaults.model_dump(exclude_unset=True)]
        if first.weights.source == "stand-in" and backbone.stand_in is not None:
            layers.append(backbone.stand_in.defaults)
        references["default"] = build_settings(TrainSettings, *layers)
    identity = first.weights.identity
    tuned = find_tuned(store.folder, first.fingerprint, first.key.candidate, identity)
    if tuned is not None:
        references["tuned"] = tuned.train
    return references
