"""The plans of a learning curve: the cells of a run, with parts of the train rows.

A subset of the train rows makes another protocol, whose results have a folder of their own. They
are planned, computed, stored and resumed as all others, and are on no other leaderboard.
"""

from dataclasses import replace

from toxbench.benchmark.plan import Plan
from toxbench.config import command_line
from toxbench.data.protocol import Protocol
from toxbench.data.subsets import train_subsets
from toxbench.store.cells import SUBSETS, CellStore


def curve_plans(plan: Plan) -> list[Plan]:
    """Return a plan for each size, the smallest first; the last one is of all train rows."""
    plan = replace(plan, command=command_line("curve", plan.settings))
    return [*(_subset_plan(plan, size) for size in sorted({*plan.settings.sizes} - {1})), plan]


def _subset_plan(plan: Plan, size: float) -> Plan:
    source, settings = plan.source, plan.settings.model_copy(update={"save_models": "none"})
    folds = train_subsets(source.comments, source.folds, size, source.settings)
    protocol = Protocol(source.comments, folds)
    store = CellStore.for_protocol(
        plan.store.folder / SUBSETS, source.comments.name, protocol.fingerprint
    )
    run = replace(plan.run, settings=settings)
    plan = replace(plan, run=run, protocol=protocol, store=store)
    return plan.with_candidates(plan.candidates, plan.seeds)
