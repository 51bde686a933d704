"""``toxbench tune``: from a table to the best settings of each backbone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxbench.cli.console import echo
from toxbench.cli.options import (
    experiment_options,
    output_options,
    settings_from,
    settings_options,
    used,
)
from toxbench.cli.run import tracker_lines
from toxbench.errors import CellsFailedError, StorageError
from toxbench.settings import RunSettings, SplitSettings, TrainSettings, TuneSettings

if TYPE_CHECKING:
    from toxbench.plugin.registry import Registry
    from toxbench.tuning.tune import Outcome, TunePlan


@click.command(short_help="Search hyperparameters, then test the best ones once.")
@click.option("--importance", is_flag=True, help="Say what mattered in finished trials, and stop.")
@settings_options(TuneSettings, without=("space",))
@click.option(
    "--space", multiple=True, metavar="NAME=RANGE",
    help="low:high, low:high:log or a,b,c; or a TOML file of them. May be repeated.",
)  # fmt: skip
@experiment_options
@output_options
@settings_options(TrainSettings)
@settings_options(SplitSettings)
def tune(**values: Any) -> None:
    """Search hyperparameters, then evaluate the best ones once on the test rows.

    The default settings are always trial 0, and test rows are not part of any trial. The same
    command resumes an interrupted search. A training setting given here, in --config or by
    --preset is fixed, not searched. --seeds is 5 here unless it is given.
    """
    from toxbench.plugin.registry import Registry

    if values["importance"]:
        registry = Registry.discover(values["plugins"])
        _print_importance(values["results"] or Path("results"), registry)
        return
    # Only now: torch and optuna take seconds to import.
    from toxbench.benchmark.validate import resolve
    from toxbench.cli.console import print_leaderboard
    from toxbench.cli.progress import feedback_for
    from toxbench.tuning.tune import plan_tuning, run_tuning

    settings = _settings(values)
    registry = Registry.discover(settings.plugins)
    resolved = resolve(settings, registry)
    with feedback_for(
        quiet=values["quiet"] or values["as_json"], debug=values["debug"]
    ) as feedback:
        for problem in registry.problems:
            feedback.warn(str(problem))
        planned = plan_tuning(resolved, download=not values["dry_run"])
        for warning in planned.plan.warnings:
            feedback.warn(warning)
        feedback.echo(_plan_text(planned))
        if values["dry_run"]:
            return
        outcome = run_tuning(planned, feedback)
    store = planned.plan.store
    if not values["as_json"] and not values["quiet"]:
        _print_tuned(planned, outcome, registry)
    print_leaderboard(outcome.leaderboard, registry, "json" if values["as_json"] else None)
    if not values["as_json"] and not values["quiet"]:
        echo(f"\nStored in {store.folder}")
        echo("The default settings in the same table: the same options with toxbench run "
                   "--tuned")  # fmt: skip
    if outcome.failures:
        more = f" (and {len(outcome.failures) - 1} more)" if len(outcome.failures) > 1 else ""
        raise CellsFailedError(f"no result: {outcome.failures[0]}{more}")


def _settings(values: dict[str, Any]) -> RunSettings:
    from toxbench.tuning.space import parse_options
    from toxbench.tuning.tune import with_tuning_seeds

    table = used(TuneSettings, values)
    table["space"] = parse_options(values["space"])
    return settings_from(values, with_tuning_seeds({}), tune=table)


def _plan_text(planned: "TunePlan") -> str:
    """Describe the searches in a few lines."""
    from toxbench.settings import INNER_FOLDS
    from toxbench.tuning.space import format_dimension
    from toxbench.tuning.storage import redact_url

    plan, settings = planned.plan, planned.settings
    comments = plan.protocol.comments
    rows = len(planned.specs[0].data.comments)
    limits = [f"{settings.limit} trials"] if settings.limit else []
    limits += [settings.budget] if settings.budget else []
    lines = [
        f"Table     {comments.name}: {len(comments)} comments, {len(comments.labels)} labels; "
        f"protocol {plan.protocol.fingerprint[:12]}",
        f"Split     {plan.source.origin}",
        f"Search    {' or '.join(limits)} for each backbone, {settings.sampler}, pruner "
        f"{settings.pruner}, on {settings.inner_folds} of {INNER_FOLDS} inner folds of {rows} "
        "rows; test rows are not among them",
    ]
    for spec in planned.specs:
        candidate = spec.candidate
        space = ", ".join(f"{n}={format_dimension(d)}" for n, d in spec.space.items())
        lines.append(f"Backbone  {candidate.name} from {candidate.weights.record.label}: {space}")
    lines.append(f"Studies   {redact_url(planned.url)} (optuna-dashboard opens it)")
    lines += tracker_lines(plan)
    return "\n".join(lines)


def _print_tuned(planned: "TunePlan", outcome: "Outcome", registry: "Registry") -> None:
    from toxbench.cli.console import print_tables
    from toxbench.report.tuning import tuned_table
    from toxbench.store.trials import FILE

    specs = {s.candidate.name: s for s in planned.specs}
    for candidate in outcome.tuned:
        spec = specs[candidate.name]
        if candidate.tuned is not None:
            table = tuned_table(candidate.tuned, spec.candidate.settings)
            print_tables([table], registry, None)
            echo(f"In {spec.folder / FILE}; beside it trials.csv and plots\n")


def _print_importance(results: Path, registry: "Registry") -> None:
    """Print and draw what mattered in every study of the newest protocol."""
    from toxbench.cli.console import print_tables
    from toxbench.report.tuning import importance_table, importances
    from toxbench.store.cells import find_store
    from toxbench.store.trials import TUNING, TrialStore
    from toxbench.tuning.results import write_study
    from toxbench.tuning.study import in_memory_study

    tuning = find_store(results).folder / TUNING
    folders = sorted(path.parent for path in tuning.glob("*/trials"))
    if not folders:
        raise StorageError(f"{tuning.parent} holds no search yet; start with: toxbench tune")
    for folder in folders:
        trials = TrialStore(folder / "trials").records()
        complete = sum(record.state == "complete" for record in trials)
        shares = importances(in_memory_study(trials))
        print_tables([importance_table(folder.name, complete, shares)], registry, None)
        for plot in write_study(folder):
            echo(f"  {plot}")
        echo("")
