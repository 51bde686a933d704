"""``toxbench tune``: from a table to the best settings of each backbone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import SEARCH, experiment_options, settings_from, settings_options, used
from toxbench.cli.plan_text import tune_plan_text
from toxbench.config import results_folder
from toxbench.errors import CellsFailedError, StorageError
from toxbench.plugin.registry import Registry
from toxbench.settings import TuneSettings

if TYPE_CHECKING:
    from toxbench.tuning.tune import Outcome, TunePlan


@cloup.command(short_help="Search hyperparameters, then test the best ones once.")
@experiment_options(
    settings_options(TuneSettings, SEARCH, ("space",)),
    SEARCH.option(
        "--space", multiple=True, metavar="NAME=RANGE",
        help="low:high, low:high:log or a,b,c; or a TOML file of them. May be repeated.",
    ),
    SEARCH.option(
        "--importance", is_flag=True,
        help="Print the importance of hyperparameters in finished trials, and stop.",
    ),
)  # fmt: skip
def tune(**values: Any) -> None:
    """Search hyperparameters, then evaluate the best ones once on the test rows.

    The default settings are always trial 0, and no trial sees test rows. The same command resumes
    an interrupted search. A training setting that is given here, in --config or by --preset is
    fixed, not searched. --seeds is 5 by default.
    """
    if values["importance"]:
        registry = Registry.with_item("formats", "plain", values["plugins"])
        _print_importance(values["results"] or results_folder(), registry)
        return
    # Imported here, because torch and optuna take seconds.
    from toxbench.benchmark.validate import resolve
    from toxbench.cli.output import progress_for
    from toxbench.store.cache import use_cache
    from toxbench.tuning.space import parse_options
    from toxbench.tuning.tune import TUNE_DEFAULTS, plan_tuning, run_tuning

    search = used(TuneSettings, values) | {"space": parse_options(values["space"])}
    settings = settings_from(values, TUNE_DEFAULTS, tune=search)
    resolved = resolve(settings, Registry.discover(settings.plugins))
    resolved.registry.report_format(values["format_name"] or "plain")  # raises before training
    with use_cache(), progress_for(values) as progress:
        planned = plan_tuning(resolved, download=not values["dry_run"])
        progress.warn_all([*map(str, resolved.registry.problems), *planned.plan.warnings])
        progress.echo(tune_plan_text(planned))
        if values["dry_run"]:
            return
        outcome = run_tuning(planned, progress)
    _print_outcome(planned, outcome, values)


def _print_outcome(planned: "TunePlan", outcome: "Outcome", values: dict[str, Any]) -> None:
    """Print tuned settings and the leaderboard; raise `CellsFailedError` after failures."""
    from toxbench.cli.output import print_leaderboard

    registry = planned.plan.run.registry
    is_brief = values["format_name"] is not None or values["quiet"]
    if not is_brief:
        _print_tuned(outcome, registry)
    print_leaderboard(outcome.leaderboard, registry, values["format_name"], values["full"])
    if not is_brief:
        echo(f"\nStored in {planned.plan.store.folder}")
    if outcome.failures:
        more = f" (and {len(outcome.failures) - 1} more)" if len(outcome.failures) > 1 else ""
        raise CellsFailedError(f"no result: {outcome.failures[0]}{more}")


def _print_tuned(outcome: "Outcome", registry: Registry) -> None:
    from toxbench.cli.output import print_tables
    from toxbench.report.tuning import front_table, tuned_table
    from toxbench.store.trials import TUNED_FILE, TrialStore

    for spec, tuned in outcome.tuned:
        if spec.settings.costs:
            trials = TrialStore(spec.folder / "trials").records()
            print_tables([front_table(spec.title, trials)], registry, None)
        print_tables([tuned_table(tuned, spec.candidate.settings)], registry, None)
        echo(f"Stored in {spec.folder / TUNED_FILE}, with trials.csv and plots\n")


def _print_importance(results: Path, registry: Registry) -> None:
    """Print and plot the importance of hyperparameters in every study of the newest results."""
    from toxbench.cli.output import print_tables
    from toxbench.report.tuning import fanova_importances, importance_table
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
        shares = fanova_importances(in_memory_study(trials))
        print_tables([importance_table(folder.name, complete, shares)], registry, None)
        for plot in write_study(folder):
            echo(f"  {plot}")
        echo("")
