"""All cells of a run: what is missing is computed and stored, what fails harms only itself."""

from collections.abc import Sequence
from contextlib import ExitStack

from toxbench.benchmark.candidates import BackboneCandidate, Candidate, CellTask, cell_tasks
from toxbench.benchmark.cell import CellRunnerConfig, Computed, code_of
from toxbench.benchmark.estimate import TimeLeft, operations
from toxbench.benchmark.feedback import Failure, Feedback
from toxbench.benchmark.plan import Plan
from toxbench.benchmark.resources import executor_for
from toxbench.benchmark.save_model import keep_model
from toxbench.benchmark.tracking import Trackers, tracking
from toxbench.errors import TryAgainError
from toxbench.executors.base import Executor, TaskError
from toxbench.executors.worker import PROCESS_ENDED
from toxbench.plugin.registry import Registry
from toxbench.ranking.build import SEEDS_NEEDED, load_leaderboard
from toxbench.ranking.rows import Leaderboard
from toxbench.records import CellKey, EpochRecord, RunRecord
from toxbench.report.labels import label_tables
from toxbench.report.leaderboard import leaderboard_table
from toxbench.store.cells import CellStore
from toxbench.store.manifest import note_code
from toxbench.store.repair import remove_partial_files
from toxbench.training.optimizer import num_evaluations
from toxbench.training.trainer import DivergedError
from toxbench.util.atomic import write_atomically

_KINDS = {DivergedError.__name__: "diverged"}  # as the leaderboard names it


def run_plan(
    plan: Plan,
    registry: Registry,
    feedback: Feedback,
    patience: float = 0,
    executor: Executor | None = None,
) -> list[Failure]:
    """Compute every missing cell, store each at once, and write the leaderboard.

    A candidate that raises loses that cell only. The leaderboard is written also when the run is
    interrupted, of the cells that are there. A run that had to wait for another one, ``patience``
    seconds at most, does not repeat what that one stored.

    Args:
        plan: what to run.
        registry: whose hooks are told.
        feedback: hears how it goes on.
        patience: see above.
        executor: computes cells; None: what the plan asks for, or what pays.

    Returns:
        the cells that failed.

    Raises:
        StorageError: results cannot be written.
        TryAgainError: another run is writing to the same folder.
    """
    with ExitStack() as held:
        _acquire_lock(plan.store, patience, held, feedback)
        for line in (*plan.prepare(), *plan.store.repair()):
            feedback.warn(line)
        note_code(plan.store.folder, code_of(registry), plan.command)
        told = held.enter_context(
            tracking(plan.store.folder, plan.trackers, plan.environ, feedback)
        )
        missing = [(candidate, key) for candidate, key in plan.missing if not plan.store.has(key)]
        keeper = _ResultRecorder(plan, registry, feedback, told, _time_left(plan, missing))
        keeper.on_start()
        try:
            models = plan.store.models.folder if plan.save_models else None
            # A node of a cluster need not see this folder: what it loses, Ray begins again.
            keeping = None if plan.where.executor == "ray" else plan.keeping
            setup = CellRunnerConfig(protocol=plan.protocol, writes=models, keeping=keeping)
            tasks = cell_tasks(missing, plan.devices)
            (executor or executor_for(plan)).compute(setup, iter(tasks), keeper)
        finally:
            for folder in (plan.store.models.folder, plan.keeping.folder):
                remove_partial_files(folder)  # of workers that were ended
            write_leaderboard(plan.store)
    return keeper.failures


class _ResultRecorder:
    """Stores results as they come, and passes on what is heard."""

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        feedback: Feedback,
        trackers: Trackers,
        time_left: TimeLeft,
    ) -> None:
        self.failures: list[Failure] = []
        self._trackers = trackers
        self._plan = plan
        self._registry = registry
        self._feedback = feedback
        self._time_left = time_left
        self._number = 0

    def on_start(self) -> None:
        """Tell of the run; tell the trackers what was stored while nobody told them."""
        self._tell("toxbench_run_started", run=_described(self._plan))
        if self._plan.trackers:
            planned = {key for _, key in self._plan.cells}
            self._trackers.catch_up(r for r in self._plan.store.records() if r.key in planned)

    def started(self, task: CellTask) -> None:
        self._number += 1
        epochs = self._epochs(task)
        self._time_left.start(task.key, epochs)
        self._feedback.cell_started(task.key, self._number, len(self._plan.missing), epochs)

    def on_progress(self, task: CellTask, record: EpochRecord) -> bool:
        comments = record.comments or self._train_rows(task)
        self._time_left.finish_epoch(task.key, record)
        self._feedback.epoch_finished(task.key, record, comments, self._time_left.seconds())
        self._tell("toxbench_epoch_finished", cell=task.key, epoch=record)
        return True

    def done(self, task: CellTask, result: Computed) -> None:
        record, probabilities = result
        saved = self._plan.save_models if record.kind == "backbone" else None
        if saved is not None:
            keep_model(self._plan, saved, record, probabilities)
        self._plan.store.write(record, probabilities)
        self._plan.store.failures.remove(record.key)
        if saved is not None:
            self._plan.store.models.remove_beaten(record.key)
        self._plan.keeping.delete(record.key.stem)
        self._time_left.finish(task.key)
        self._feedback.cell_finished(record, self._time_left.seconds())
        self._tell("toxbench_cell_finished", result=record)

    def failed(self, task: CellTask, fault: TaskError) -> None:
        failure = Failure(task.key, fault)
        self.failures.append(failure)
        kind = _KINDS.get(fault.kind, fault.kind)
        self._plan.store.failures.write(task.key, kind, fault.reason)
        if fault.kind not in PROCESS_ENDED:  # what it raises it would raise again from there
            self._plan.keeping.delete(task.key.stem)
        self._time_left.drop(task.key)
        self._feedback.cell_failed(failure)

    def _epochs(self, task: CellTask) -> int | None:
        """Count the epochs of a cell; None for a baseline."""
        if not isinstance(task.candidate, BackboneCandidate):
            return None
        return num_evaluations(task.candidate.settings, self._train_rows(task))

    def _train_rows(self, task: CellTask) -> int:
        return len(self._plan.protocol.folds[task.key.fold].train)

    def _tell(self, hook: str, **arguments: object) -> None:
        for problem in self._registry.notify(hook, **arguments):
            self._feedback.warn(str(problem))
        self._trackers.tell(hook, **arguments)


def _time_left(plan: Plan, missing: Sequence[tuple[Candidate, CellKey]]) -> TimeLeft:
    backbones = [(c, key) for c, key in missing if isinstance(c, BackboneCandidate)]
    return TimeLeft({key: operations(plan, [(c, key)]) for c, key in backbones})


def _described(plan: Plan) -> RunRecord:
    backbones = any(isinstance(candidate, BackboneCandidate) for candidate in plan.candidates)
    return RunRecord(
        table=plan.protocol.comments.name,
        fingerprint=plan.protocol.fingerprint,
        synthetic=plan.synthetic,
        labels=plan.protocol.comments.labels,
        folds=len(plan.protocol.folds),
        seeds=plan.seeds,
        exploratory=backbones and plan.seeds < SEEDS_NEEDED,
    )


def _acquire_lock(store: CellStore, patience: float, held: ExitStack, feedback: Feedback) -> None:
    """Lock the folder; say so where that means to wait."""
    try:
        held.enter_context(store.lock())
    except TryAgainError as error:
        if not patience:
            raise
        feedback.warn(f"{str(error).partition(';')[0]}; waiting for it")
        held.enter_context(store.lock(patience))


def write_leaderboard(store: CellStore) -> Leaderboard:
    """Write leaderboard.md (labels too), .csv and .json beside the cells, and return it."""
    leaderboard = load_leaderboard(store)
    registry = Registry.discover([])  # toxbench's own formats, whoever else claims their names
    board, labels = leaderboard_table(leaderboard), label_tables(leaderboard)
    for suffix, name in (("md", "markdown"), ("csv", "csv"), ("json", "json")):
        render = registry.report_format(name).item.render
        texts = [
            render(table).strip() for table in ([board, *labels] if suffix == "md" else [board])
        ]
        content = "\n\n".join(texts) + "\n"
        write_atomically(store.folder / f"leaderboard.{suffix}", content.encode("utf-8"))
    return leaderboard
