"""``toxbench show``: everything that is stored of one candidate."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import OUTPUT, results_argument, table_options
from toxbench.config import build_settings, results_folder
from toxbench.errors import PluginError, SettingsError
from toxbench.plugin.registry import Registry
from toxbench.settings import TrainSettings

if TYPE_CHECKING:
    from toxbench.report.candidate import Candidate
    from toxbench.store.cells import CellStore

_TABLES = ("summary", "settings", "cells", "curves", "labels", "thresholds", "failures")


@cloup.command(short_help="Print all that is stored of one candidate.")
@cloup.argument("name", metavar="NAME")
@results_argument
@OUTPUT.option(
    "--table", "which", type=click.Choice(_TABLES), help="Print only this table; csv needs it."
)
@table_options
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
    from toxbench.cli.output import print_tables
    from toxbench.ranking.build import load_leaderboard
    from toxbench.ranking.cells import load_cells, load_failures
    from toxbench.report.candidate import TABLES, find_candidate
    from toxbench.store.cells import find_store

    if format_name == "csv" and which is None:
        raise SettingsError(f"csv holds one table; choose with --table {'|'.join(_TABLES)}")
    registry = Registry.with_item("formats", format_name or "plain", plugins)
    render = registry.report_format(format_name or "plain").item.render
    store = find_store(results or results_folder())
    failures = load_failures(store)
    records = [record for record, _ in load_cells(store)[2]]
    found = find_candidate(load_leaderboard(store), records, failures, name)
    found = replace(found, references=_references(found, store, plugins))
    tables = {key: make(found) for key, make in TABLES.items() if which in {None, key}}
    if format_name == "json" and which is None:
        content = {key: json.loads(render(table)) for key, table in tables.items()}
        echo(json.dumps(content, indent=2))
    else:
        shown = [table for key, table in tables.items() if table.rows or key == which]
        print_tables(shown, registry, format_name)


def _references(
    found: "Candidate", store: "CellStore", plugins: tuple[str, ...] | None
) -> dict[str, TrainSettings]:
    """Return the default settings, if its plugin is installed, and the tuned ones, if any."""
    from toxbench.store.trials import find_tuned

    first = found.cells[0] if found.cells else None
    if first is None or first.weights is None:
        return {}
    references = {}
    name = first.key.candidate
    try:
        registry = Registry.with_item("backbones", name, plugins)
        backbone = registry.stored_backbone(name, first.distribution).item
    except (PluginError, SettingsError):  # results outlive the plugin that made them
        backbone = None
    if backbone is not None:
        layers: list[Mapping[str, Any]] = [backbone.defaults.model_dump(exclude_unset=True)]
        if first.weights.source == "stand-in" and backbone.stand_in is not None:
            layers.append(backbone.stand_in.defaults)
        references["default"] = build_settings(TrainSettings, *layers)
    identity = first.weights.identity
    tuned = find_tuned(store.folder, first.fingerprint, name, identity, first.key.fold)
    if tuned is not None:
        references["tuned"] = tuned.train
    return references
