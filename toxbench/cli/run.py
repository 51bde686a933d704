"""``toxbench run``: from a table to a leaderboard."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import (
    OUTPUT,
    candidate_options,
    combined,
    ensembles_option,
    experiment_options,
    quoted_option,
    settings_from,
)
from toxbench.cli.plan_text import run_plan_text
from toxbench.errors import CellsFailedError
from toxbench.plugin.registry import Registry
from toxbench.util.text import count_of

if TYPE_CHECKING:
    from toxbench.benchmark.plan import Plan
    from toxbench.benchmark.run import RunResult
    from toxbench.cli.torchrun import TorchrunSession


@cloup.command(
    epilog="Definitions of the metrics: toxbench metrics",
    short_help="Train and compare backbones, and print a leaderboard.",
)
@combined(
    experiment_options(),
    candidate_options,
    OUTPUT.option(
        "--resume", is_flag=True, default=None,
        help="Refuse to run unless results of this table and split are stored.",
    ),
    quoted_option,
    ensembles_option,
)  # fmt: skip
@click.pass_obj
def run(session: "TorchrunSession | None", /, **values: Any) -> None:
    """Train and compare backbones on the table in FILE, and print a leaderboard.

    Stored cells are not trained again, so the same command resumes an interrupted run. Settings
    that are not given here come from --config, then --preset, then the backbone.
    """
    from toxbench.benchmark.validate import resolve

    settings = settings_from(values)
    registry = Registry.discover(settings.plugins)
    resolved = resolve(settings, registry, None if session is None else session.coordinator)
    registry.report_format(values["format_name"] or "plain")  # raises before any training
    if session is not None:
        session.take_device(settings.device)
        if session.env.rank > 0:
            click.get_current_context().exit(session.serve(registry))
    # Imported here, because torch and transformers take seconds.
    from toxbench.benchmark.plan import make_plan
    from toxbench.benchmark.run import run_plan
    from toxbench.cli.output import progress_for
    from toxbench.store.cache import use_cache

    with use_cache(), progress_for(values) as progress:
        plan = make_plan(resolved, download=not values["dry_run"])
        progress.warn_all([*map(str, registry.problems), *plan.warnings])
        progress.echo(run_plan_text(plan))
        if values["dry_run"]:
            return
        result = run_plan(plan, progress)
    _print_result(plan, result, values)


def _print_result(plan: "Plan", result: "RunResult", values: dict[str, Any]) -> None:
    """Print the leaderboard; raise `CellsFailedError` if cells have no result."""
    from toxbench.cli.output import print_leaderboard
    from toxbench.ranking.ensembles import load_ensemble_leaderboard

    has_ensembles = values["ensembles"]
    board = load_ensemble_leaderboard(plan.store) if has_ensembles else result.leaderboard
    print_leaderboard(board, plan.run.registry, values["format_name"], values["full"])
    if values["format_name"] is None and not values["quiet"]:
        echo(f"\nStored in {plan.store.folder}")
    check_failures(plan.run.unavailable, len(result.failures), len(plan.cells))


def check_failures(unavailable: Sequence[str], failed: int, cells: int) -> None:
    """Raise `CellsFailedError` if a plugin was unavailable, or cells failed."""
    problems = list(unavailable)
    if failed:
        problems.append(
            f"{failed} of {count_of(cells, 'cell')} failed and have no result; the same command "
            "tries them again"
        )
    if problems:
        raise CellsFailedError(problems)
