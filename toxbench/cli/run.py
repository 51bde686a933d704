"""``toxbench run``: from a table to a leaderboard."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxbench.cli.options import (
    column_options,
    comma_list,
    results_option,
    settings_options,
    used,
)
from toxbench.errors import CellsFailedError
from toxbench.settings import (
    PRESETS,
    ColumnSettings,
    Frozen,
    RunSettings,
    SplitSettings,
    TrainSettings,
)

if TYPE_CHECKING:
    from toxbench.benchmark.plan import Plan


@click.command()
@click.option(
    "--backbones", metavar="A,B,C", callback=comma_list,
    help="What to compare; see: toxbench backbones. [bert,distilbert]",
)  # fmt: skip
@click.option(
    "--baselines", metavar="A,B,C", callback=comma_list,
    help="Cheap references, or none. [all that are registered]",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="FILE",
    help="CSV, TSV, Parquet or JSON lines. [a synthetic sample]",
)  # fmt: skip
@click.option("--seeds", type=int, metavar="N", help="Cells of each backbone: seeds 0 to N-1. [1]")
@click.option(
    "--weights", multiple=True, metavar="SOURCE",
    help="auto, hub, stand-in, or NAME=PATH for one backbone; may be repeated. [auto]",
)  # fmt: skip
@click.option(
    "--preset", metavar="|".join(PRESETS),
    help="A whole recipe; notebook is the original study's.",
)  # fmt: skip
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE",
    help="TOML file with the same settings; flags win over it.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "mps", "cpu"]), help="Where to train. [auto]"
)
@results_option
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--quiet", is_flag=True, help="Print the leaderboard and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the leaderboard as JSON only.")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
@column_options
@settings_options(TrainSettings)
@settings_options(SplitSettings)
def run(**values: Any) -> None:
    """Train and compare backbones, and print a leaderboard.

    What is stored already is not trained again, so the same command goes on where it was
    interrupted. Settings not given here come from --config, then --preset, then the backbone.
    """
    from toxbench.benchmark.check import check_settings
    from toxbench.plugin.registry import Registry

    settings = _settings(values)
    registry = Registry.discover()
    check_settings(settings, registry)
    # Only now: torch and transformers take seconds to import.
    from toxbench.benchmark.plan import make_plan
    from toxbench.benchmark.run import run_plan
    from toxbench.cli.feedback import feedback_for
    from toxbench.cli.show import print_leaderboard

    with feedback_for(
        quiet=values["quiet"] or values["as_json"], debug=values["debug"]
    ) as feedback:
        for problem in registry.problems:
            feedback.warn(str(problem))
        plan = make_plan(settings, registry, download=not values["dry_run"])
        for warning in plan.warnings:
            feedback.warn(warning)
        feedback.say(_plan_text(plan))
        if values["dry_run"]:
            return
        failures = run_plan(plan, registry, feedback)
    print_leaderboard(plan.store, registry, "json" if values["as_json"] else None)
    if not values["as_json"] and not values["quiet"]:
        click.echo(f"\nStored in {plan.store.folder}")
    if failures:
        raise CellsFailedError(
            f"{len(failures)} of {_cells(len(plan.cells))} failed and have no result; "
            "the same command tries them again"
        )


def _settings(values: dict[str, Any]) -> RunSettings:
    from toxbench.settings import read_config, run_settings

    config = read_config(values["config"]) if values["config"] else {}
    names = ("backbones", "baselines", "data", "seeds", "weights", "preset", "device", "results")
    flags = {name: values[name] for name in names if values[name] is not None}
    if not flags["weights"]:  # an option that may be repeated is empty, not None, when unused
        del flags["weights"]
    kinds: dict[str, type[Frozen]] = {
        "columns": ColumnSettings,
        "train": TrainSettings,
        "split": SplitSettings,
    }
    tables = {name: used(kind, values) for name, kind in kinds.items()}
    return run_settings(config, flags | {name: table for name, table in tables.items() if table})


def _plan_text(plan: "Plan") -> str:
    """Describe the plan in a few lines."""
    from toxbench.benchmark.candidate import BackboneCandidate
    from toxbench.benchmark.expected import expected_seconds

    comments, fold = plan.protocol.comments, plan.protocol.folds[0]
    tested = comments.targets[fold.test]
    lines = [
        f"Table     {comments.name}: {len(comments)} comments, {len(comments.labels)} labels",
        f"Split     {len(fold.train)} train, {len(fold.validation)} validation, "
        f"{len(fold.test)} test rows; protocol {plan.protocol.fingerprint[:12]}",
        f"Test      {tested.sum()} positive entries; "
        f"{(~tested.any(axis=1)).mean():.1%} of the rows have no label",
    ]
    for candidate in plan.candidates:
        cells = sum(c is candidate for c, _ in plan.cells)
        missing = sum(c is candidate for c, _ in plan.missing)
        line = f"Candidate {candidate.name}: {_cells(cells)}, {cells - missing} stored already"
        if isinstance(candidate, BackboneCandidate):
            device = plan.devices[candidate.name]
            line += (
                f"; {candidate.settings.epochs} epochs on {device.kind} in {device.precision} "
                f"from {candidate.weights.record.label}"
            )
        lines.append(line)
    if plan.missing:
        seconds = expected_seconds(plan)
        about = (
            "unknown until the weights are here" if seconds is None else f"about {_time(seconds)}"
        )
        lines.append(f"Expected  {about} for {_cells(len(plan.missing))}")
    else:
        lines.append("Expected  nothing to train: every cell is stored")
    return "\n".join(lines)


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
