"""``toxbench curve``: scores by the number of train rows, and a forecast for more rows."""

from typing import Any

import cloup

from toxbench.cli.options import (
    MODELS,
    candidate_options,
    combined,
    experiment_options,
    settings_from,
)
from toxbench.cli.plan_text import run_plan_text, size_line
from toxbench.cli.run import check_failures
from toxbench.plugin.registry import Registry


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
    from toxbench.benchmark.run import run_plan
    from toxbench.cli.progress import progress_for
    from toxbench.cli.tables import print_tables
    from toxbench.ranking.learning_curves import load_curves
    from toxbench.report.learning_curves import curve_table
    from toxbench.report.notes import warnings
    from toxbench.store.cache import use_cache

    with use_cache():
        with progress_for(values) as progress:
            plan = make_plan(resolved, download=not values["dry_run"])
            plans = curve_plans(plan)
            progress.warn_all([*map(str, registry.problems), *plan.warnings])
            progress.echo("\n".join([run_plan_text(plan), *map(size_line, plans)]))
        if values["dry_run"]:
            return
        results = []
        for plan in plans:
            with progress_for(values) as progress:  # counts the cells of one size
                progress.echo(size_line(plan))
                results.append(run_plan(plan, progress))
    table = curve_table(load_curves(plan.store), warnings(results[-1].leaderboard))
    print_tables([table], registry, values["format_name"])
    failed = sum(len(result.failures) for result in results)
    check_failures(resolved.unavailable, failed, sum(len(plan.cells) for plan in plans))
