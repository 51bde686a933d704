"""``toxbench run``: from a table to a leaderboard."""

import shlex
from typing import TYPE_CHECKING, Any

import click

from toxbench.cli.console import echo
from toxbench.cli.options import (
    experiment_options,
    output_options,
    settings_from,
    settings_options,
)
from toxbench.errors import CellsFailedError
from toxbench.records import PARTS
from toxbench.settings import SplitSettings, TrainSettings
from toxbench.util.torchrun import NOT_DISTRIBUTED

if TYPE_CHECKING:
    from toxbench.benchmark.plan import Plan
    from toxbench.cli.torchrun import TorchrunSession


@click.command(epilog="What the numbers mean: toxbench metrics")
@experiment_options
@click.option(
    "--tuned", is_flag=True, default=None,
    help="Each backbone once more, with the settings that toxbench tune found.",
)  # fmt: skip
@click.option(
    "--resume", is_flag=True, default=None,
    help="Go on with stored results of this table and split, or refuse.",
)  # fmt: skip
@output_options
@settings_options(TrainSettings)
@settings_options(SplitSettings)
@click.pass_obj
def run(spread: "TorchrunSession | None", /, **values: Any) -> None:
    """Train and compare backbones, and print a leaderboard.

    What is stored already is not trained again, so the same command goes on where it was
    interrupted. Settings not given here come from --config, then --preset, then the backbone.
    """
    from toxbench.benchmark.validate import check_settings
    from toxbench.plugin.registry import Registry

    settings = settings_from(values)
    registry = Registry.discover(settings.plugins)
    check_settings(settings, registry)
    if spread is not None:
        spread.check(settings)
        if not spread.leads:
            click.get_current_context().exit(spread.serve(registry))
    # Only now: torch and transformers take seconds to import.
    from toxbench.benchmark.plan import make_plan
    from toxbench.benchmark.run import run_plan
    from toxbench.cli.console import print_leaderboard
    from toxbench.cli.progress import feedback_for
    from toxbench.ranking.build import load_leaderboard

    with feedback_for(
        quiet=values["quiet"] or values["as_json"], debug=values["debug"]
    ) as feedback:
        for problem in registry.problems:
            feedback.warn(str(problem))
        place = NOT_DISTRIBUTED if spread is None else spread.place
        plan = make_plan(settings, registry, not values["dry_run"], place)
        for warning in plan.warnings:
            feedback.warn(warning)
        feedback.echo(_plan_text(plan))
        if values["dry_run"]:
            return
        failures = run_plan(plan, registry, feedback, executor=spread)
    print_leaderboard(load_leaderboard(plan.store), registry, "json" if values["as_json"] else None)
    if not values["as_json"] and not values["quiet"]:
        echo(f"\nStored in {plan.store.folder}")
    lines = list(plan.lost)
    if failures:
        lines.append(
            f"{len(failures)} of {_cells(len(plan.cells))} failed and have no result; "
            "the same command tries them again"
        )
    if lines:
        raise CellsFailedError(lines)


def _plan_text(plan: "Plan") -> str:
    """Describe the plan in a few lines."""
    import numpy as np

    from toxbench.benchmark.candidates import BackboneCandidate
    from toxbench.benchmark.resources import num_workers

    comments, folds = plan.protocol.comments, plan.protocol.folds
    tested = comments.targets[np.concatenate([fold.test for fold in folds])]
    train, validation, test = ([len(fold.part(part)) for fold in folds] for part in PARTS)
    lines = [
        f"Table     {comments.name}: {len(comments)} comments, {len(comments.labels)} labels",
        f"Split     {plan.source.origin}: {_spread(train)} train, {_spread(validation)} "
        f"validation, {_spread(test)} test rows"
        f"{f' in each of {len(folds)} folds' if len(folds) > 1 else ''}; protocol "
        f"{plan.protocol.fingerprint[:12]}",
        f"Test      {tested.sum()} positive entries; "
        f"{(~tested.any(axis=1)).mean():.1%} of the rows have no label",
    ]
    for candidate in plan.candidates:
        cells = sum(c is candidate for c, _ in plan.cells)
        missing = sum(c is candidate for c, _ in plan.missing)
        line = f"Candidate {candidate.title}: {_cells(cells)}, {cells - missing} stored already"
        if isinstance(candidate, BackboneCandidate):
            device = plan.devices[candidate.title]
            line += (
                f"; {_count(candidate.settings.epochs, 'epoch')} on {device.kind} in "
                f"{device.precision} "
                f"from {candidate.weights.record.label}"
            )
            if plan.processes > 1:
                portion = -(-candidate.settings.batch_size // plan.processes)
                line += f"; {plan.processes} processes, {_count(portion, 'comment')} each"
        lines.append(line)
    lines += tracker_lines(plan)
    lines += _detectable(plan)
    if plan.missing:
        workers = min(num_workers(plan), len(plan.missing))
        at_once = f", {workers} at once" if workers > 1 else ""
        lines.append(f"Cells     {len(plan.missing)} to compute{at_once}")
    else:
        lines.append("Cells     nothing to compute: every cell is stored")
    return "\n".join(lines)


def tracker_lines(plan: "Plan") -> list[str]:
    """Say where each tracker writes, and how to look at it."""
    from toxbench.benchmark.tracking import FOLDER

    folders = {found.item: plan.store.folder / FOLDER / found.item.name for found in plan.trackers}
    return [
        f"Tracker   {tracker.name}: {tracker.view or '{folder}'}".replace(
            "{folder}", shlex.quote(str(folder.absolute())) if tracker.view else str(folder)
        )
        for tracker, folder in folders.items()
    ]


def _spread(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _detectable(plan: "Plan") -> list[str]:
    """Say how large a difference the test rows can show, before anything is trained."""
    import numpy as np

    from toxbench.benchmark.candidates import BackboneCandidate
    from toxbench.evaluation.power import detectable_difference
    from toxbench.report.verdicts import METRIC_TITLES

    seeds = {key.seed for c, key in plan.cells if isinstance(c, BackboneCandidate)}
    if not seeds:
        return []
    tested = np.concatenate([fold.test for fold in plan.protocol.folds])
    found = detectable_difference(plan.protocol.comments.targets[tested], len(seeds))
    said = " or ".join(f"{size:.3f} in {METRIC_TITLES[name]}" for name, size in found.items())
    return [
        f"Shows     a difference of {said} four times in five with {len(seeds)} "
        f"seed{'s' if len(seeds) > 1 else ''}, if candidates err as two stand-ins did"
    ]


def _cells(count: int) -> str:
    return _count(count, "cell")


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
