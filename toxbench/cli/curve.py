"""``toxbench curve``: scores by the number of train rows, and a forecast for more rows."""

from typing import Any

import cloup

from toxbench.cli import options
from toxbench.cli.plan_text import run_plan_text, size_line
from toxbench.cli.run import check_failures
from toxbench.plugin.registry import Registry


@cloup.command(short_help="Train on parts of the train rows: does more data help?")
@options.experiment_options()
@options.candidate_options
@options.names_option(
    options.MODELS, "--sizes",
    "Fractions of the train rows to train on; 1 is always added. [0.25,0.5,1]",
)  # fmt: skip
def curve(**values: Any) -> None:
    """Train on nested parts of the train rows, and forecast the scores with twice the rows.

    Validation and test rows stay the same. The cells on all train rows are those of toxbench run;
    no stored cell is trained again, and the same command resumes.
    """
    from toxbench.benchmark.validate import resolve

    settings = options.settings_from(values)
    resolved = resolve(settings, Registry.discover(settings.plugins))
    resolved.registry.report_format(values["format_name"] or "plain")  # raises before training
    # Imported here, because torch and transformers take seconds.
    from toxbench.benchmark.plan import curve_plans, make_plan
    from toxbench.benchmark.run import run_plan
    from toxbench.cli.output import print_tables, progress_for
    from toxbench.ranking.learning_curves import load_curves
    from toxbench.report.leaderboard import leaderboard_tables
    from toxbench.report.learning_curves import curve_table
    from toxbench.report.notes import warnings
    from toxbench.store.cache import use_cache

    with use_cache():
        with progress_for(values) as progress:
            plans = curve_plans(make_plan(resolved, download=not values["dry_run"]))
            progress.warn_all([*map(str, resolved.registry.problems), *plans[-1].warnings])
            progress.echo("\n".join([run_plan_text(plans[-1]), *map(size_line, plans)]))
        if values["dry_run"]:
            return
        results = []
        for plan in plans:
            with progress_for(values) as progress:  # which counts the cells of one plan
                progress.echo(size_line(plan))
                results.append(run_plan(plan, progress))
    board = results[-1].leaderboard
    tables = [curve_table(load_curves(plans[-1].store), warnings(board))]
    tables += leaderboard_tables(board) if values["full"] else []
    print_tables(tables, resolved.registry, values["format_name"])
    failed = sum(len(result.failures) for result in results)
    check_failures(resolved.unavailable, failed, sum(len(plan.cells) for plan in plans))
