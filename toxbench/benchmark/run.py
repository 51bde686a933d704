"""All cells of a run: what is missing is computed and stored, what fails harms only itself."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol as Interface

from toxbench.atomic import write_atomically
from toxbench.benchmark.candidate import Candidate
from toxbench.benchmark.cell import CellRunner
from toxbench.benchmark.plan import Plan
from toxbench.errors import StorageError, TryAgainError
from toxbench.plugin.registry import Problem, Registry
from toxbench.records import CellKey, CellRecord, EpochRecord
from toxbench.report.labels import label_tables
from toxbench.report.tables import leaderboard_table
from toxbench.store.cells import CellStore
from toxbench.store.leaderboard import Leaderboard
from toxbench.store.ranking import load_leaderboard


class Feedback(Interface):
    """Hears how a run goes on."""

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """A cell begins: ``number`` of ``total``, counted from 1."""

    def epoch_finished(self, key: CellKey, epoch: EpochRecord, comments: int) -> None:
        """An epoch over ``comments`` train rows ended."""

    def cell_finished(self, record: CellRecord) -> None:
        """A cell was stored."""

    def cell_failed(self, failure: "Failure") -> None:
        """A cell has no result; the run goes on."""

    def warn(self, message: str) -> None:
        """Something that a user should know."""


@dataclass(frozen=True)
class Failure:
    """A cell that has no result, and why in one line."""

    key: CellKey
    error: BaseException

    def __str__(self) -> str:
        reason = " ".join(str(self.error).split()) or "no message"
        kind = type(self.error).__name__
        return f"cell {self.key.candidate} seed {self.key.seed} failed: {kind}: {reason}"


def run_plan(
    plan: Plan, registry: Registry, feedback: Feedback, patience: float = 0
) -> list[Failure]:
    """Compute every missing cell, store each at once, and write the leaderboard.

    A candidate that raises loses that cell only. The leaderboard is written also when the run is
    interrupted, of the cells that are there. A run that had to wait for another one, ``patience``
    seconds at most, does not repeat what that one stored.

    Returns:
        the cells that failed.

    Raises:
        StorageError: results cannot be written.
        TryAgainError: another run is writing to the same folder.
    """
    failures: list[Failure] = []
    plan.prepare()
    with ExitStack() as held:
        _hold(plan.store, patience, held, feedback)
        try:
            for number, (candidate, key, runner) in enumerate(_runners(plan), start=1):
                settings = getattr(candidate, "settings", None)
                epochs = settings.epochs if settings else None
                feedback.cell_started(key, number, len(plan.missing), epochs)
                failure = _run_cell(plan, key, runner, registry, feedback)
                if failure is not None:
                    feedback.cell_failed(failure)
                    failures.append(failure)
        finally:
            write_leaderboard(plan.store, registry)
    return failures


def _hold(store: CellStore, patience: float, held: ExitStack, feedback: Feedback) -> None:
    """Lock the folder; say so where that means to wait."""
    try:
        held.enter_context(store.lock())
    except TryAgainError:
        if not patience:
            raise
        feedback.warn(f"another run is writing to {store.folder}; waiting for it")
        held.enter_context(store.lock(patience))


def write_leaderboard(store: CellStore, registry: Registry) -> Leaderboard:
    """Write leaderboard.md (labels too), .csv and .json beside the cells, and return it."""
    leaderboard = load_leaderboard(store)
    board, labels = leaderboard_table(leaderboard), label_tables(leaderboard)
    for suffix, name in (("md", "markdown"), ("csv", "csv"), ("json", "json")):
        render = registry.report_format(name).item.render
        texts = [
            render(table).strip() for table in ([board, *labels] if suffix == "md" else [board])
        ]
        content = "\n\n".join(texts) + "\n"
        write_atomically(store.folder / f"leaderboard.{suffix}", content.encode("utf-8"))
    return leaderboard


def _runners(plan: Plan) -> Iterable[tuple[Candidate, CellKey, CellRunner]]:
    """Yield missing cells with one runner for each candidate, which keeps what they share."""
    runner: CellRunner | None = None
    current: Candidate | None = None
    for candidate, key in plan.missing:
        if plan.store.has(key):
            continue
        if runner is None or candidate is not current:
            runner = CellRunner(candidate, plan.protocol, plan.devices[candidate.title])
            current = candidate
        yield candidate, key, runner


def _run_cell(
    plan: Plan, key: CellKey, runner: CellRunner, registry: Registry, feedback: Feedback
) -> Failure | None:
    comments = len(plan.protocol.folds[key.fold].train)

    def on_epoch(epoch: EpochRecord) -> None:
        feedback.epoch_finished(key, epoch, comments)
        _warn(registry.tell("toxbench_epoch_finished", cell=key, epoch=epoch), feedback)

    try:
        record, probabilities = runner.run(key, on_epoch)
    except StorageError:
        raise  # the disk fails every cell alike
    except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, counted, exit code 5
        return Failure(key, error)
    plan.store.write(record, probabilities)
    feedback.cell_finished(record)
    _warn(registry.tell("toxbench_cell_finished", result=record), feedback)
    return None


def _warn(problems: Iterable[Problem], feedback: Feedback) -> None:
    for problem in problems:
        feedback.warn(str(problem))
