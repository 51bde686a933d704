"""``toxbench curve``: scores by the number of train rows, and a forecast for more rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import (
    MODELS,
    candidate_options,
    combined,
    experiment_options,
    settings_from,
)
from toxbench.cli.plan_text import curve_plan_text, size_line
from toxbench.cli.run import check_failures
from toxbench.plugin.registry import Registry

if TYPE_CHECKING:
    from toxbench.benchmark.plan import Plan
    from toxbench.benchmark.run import RunResult


@cloup.command(short_help="Train on parts of the train rows: does more data help?")
@combined(
    experiment_options(),
    candidate_options,
    MODELS.option(
        "--sizes", metavar="A,B,C",
        help="Fractions of the train rows to train on; 1 is always added. [0.25,0.5,1]",
    ),
)  # fmt: skip
def curve(**values: Any) -> None:
    """Train on nested parts of the train rows, and forecast the scores with twice the rows.

    Validation and test rows stay the same. The cells on all train rows are those of toxbench run;
    no stored cell is trained again, and the same command resumes.
    """
    from toxbench.benchmark.validate import resolve

    settings = settings_from(values)
    registry = Registry.discover(settings.plugins)
    resolved = resolve(settings, registry)
    registry.report_format(values["format_name"] or "plain")  # raises before any training
    # Imported here, because torch and transformers take seconds.
    from toxbench.benchmark.curve import curve_plans
    from toxbench.benchmark.plan import make_plan
    from toxbench.cli.progress import progress_for
    from toxbench.store.cache import use_cache

    with use_cache():
        with progress_for(values) as progress:
            plan = make_plan(resolved, download=not values["dry_run"])
            plans = curve_plans(plan)
            progress.warn_all([*map(str, registry.problems), *plan.warnings])
            progress.echo(curve_plan_text(plans))
        if values["dry_run"]:
            return
        results = [_run_size(plan, values) for plan in plans]
    _print_curves(plans, results, values)


def _run_size(plan: "Plan", values: dict[str, Any]) -> "RunResult":
    """Compute the cells with one number of train rows, which are counted from 1."""
    from toxbench.benchmark.run import run_plan
    from toxbench.cli.progress import progress_for

    with progress_for(values) as progress:
        progress.echo(size_line(plan))
        return run_plan(plan, progress)


def _print_curves(
    plans: "Sequence[Plan]", results: "Sequence[RunResult]", values: dict[str, Any]
) -> None:
    """Print the table and write the picture; raise `CellsFailedError` if cells have no result."""
    from toxbench.cli.tables import print_tables
    from toxbench.ranking.learning_curves import load_curves
    from toxbench.report.figures import svg_bytes
    from toxbench.report.html.sections.train_rows import curve_figure
    from toxbench.report.learning_curves import curve_table
    from toxbench.report.notes import warnings
    from toxbench.util.atomic import write_atomically

    plan, board = plans[-1], results[-1].leaderboard
    curves = load_curves(plan.store)
    table = curve_table(curves, warnings(board))
    print_tables([table], plan.run.registry, values["format_name"])
    if curves:
        picture = plan.store.folder / "curve.svg"
        write_atomically(picture, svg_bytes(curve_figure(curves)))
        if values["format_name"] is None and not values["quiet"]:
            echo(f"\nPicture in {picture}")
    failed = sum(len(result.failures) for result in results)
    check_failures(plan.run.unavailable, failed, sum(len(plan.cells) for plan in plans))
