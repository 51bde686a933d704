"""All cells of a run: compute and store the missing ones, and write the leaderboard."""

import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from toxbench.benchmark.candidates import BackboneCandidate, Candidate, CellTask
from toxbench.benchmark.cell import CellRunnerConfig, Computed
from toxbench.benchmark.plan import Plan
from toxbench.benchmark.progress import Failure, Feedback
from toxbench.benchmark.resources import TimeLeft, count_operations, describe_code, executor_for
from toxbench.benchmark.save_model import publish_model
from toxbench.benchmark.tracking import Trackers, tracking
from toxbench.errors import TryAgainError
from toxbench.executors.base import TaskError
from toxbench.executors.worker import PROCESS_ENDED
from toxbench.plugin.registry import Registry
from toxbench.ranking.build import load_leaderboard, with_label_intervals
from toxbench.ranking.cells import load_cells
from toxbench.ranking.rows import SEEDS_NEEDED, Leaderboard
from toxbench.records import CellKey, EpochRecord, RunRecord
from toxbench.report.labels import label_tables
from toxbench.report.leaderboard import cell_records, leaderboard_table, leaderboard_tables
from toxbench.report.tables import Record
from toxbench.store.cells import CellStore
from toxbench.store.folder import remove_partial_files
from toxbench.store.manifest import record_code
from toxbench.training.optimizer import num_evaluations
from toxbench.training.trainer import DivergedError
from toxbench.util.atomic import write_atomically

_KINDS = {DivergedError.__name__: "diverged"}  # error class -> name on the leaderboard


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        leaderboard: of all stored cells of the protocol.
        failures: the cells without a result.
    """

    leaderboard: Leaderboard
    failures: tuple[Failure, ...]


def run_plan(plan: Plan, feedback: Feedback, patience: float = 0) -> RunResult:
    """Compute every missing cell, store each at once, and write the leaderboard.

    A candidate that raises loses only that cell. An interrupted run also writes the leaderboard,
    of the cells that are stored. Cells that another run stored in the meantime are skipped. If
    another run writes to the same folder, this one waits for it, ``patience`` seconds at most.

    Raises:
        StorageError: results cannot be written.
        TryAgainError: another run is still writing to the same folder.
    """
    registry, store = plan.run.registry, plan.store
    with ExitStack() as stack:
        _acquire_lock(store, patience, stack, feedback)
        for line in (*plan.write_protocol(), *store.repair()):
            feedback.warn(line)
        record_code(store.folder, describe_code(registry), plan.command)
        trackers = stack.enter_context(
            tracking(store.folder, plan.run.trackers, registry.environ, feedback)
        )
        missing = [(candidate, key) for candidate, key in plan.missing if not store.has(key)]
        recorder = _ResultRecorder(plan, feedback, trackers, _time_left(plan, missing))
        recorder.start()
        try:
            executor_for(plan).compute(
                _runner_config(plan),
                iter([CellTask(c, key, plan.devices[c.title]) for c, key in missing]),
                recorder,
            )
        finally:
            for folder in (store.models.folder, plan.checkpoints.folder):
                remove_partial_files(folder)  # of workers that were killed
            leaderboard = write_leaderboard(store)
    return RunResult(leaderboard, tuple(recorder.failures))


def _runner_config(plan: Plan) -> CellRunnerConfig:
    return CellRunnerConfig(
        protocol=plan.protocol,
        writes=plan.store.models.folder if plan.save_models else None,
        # The nodes of a cluster need not see this folder; Ray starts lost cells from the beginning.
        checkpoints=None if plan.settings.executor == "ray" else plan.checkpoints,
    )


@dataclass
class _ResultRecorder:
    """The task callbacks of a run: store results, report progress, call hooks and trackers."""

    plan: Plan
    feedback: Feedback
    trackers: Trackers
    time_left: TimeLeft
    failures: list[Failure] = field(default_factory=list)
    started_cells: int = 0

    def start(self) -> None:
        """Call the start hook; log stored cells that no tracker has logged yet."""
        self._call_hook("toxbench_run_started", run=_run_record(self.plan))
        if self.plan.run.trackers:
            planned = {key for _, key in self.plan.cells}
            self.trackers.log_stored(r for r in self.plan.store.records() if r.key in planned)

    def started(self, task: CellTask) -> None:
        self.started_cells += 1
        epochs = None
        if isinstance(task.candidate, BackboneCandidate) and task.candidate.has_epochs:
            rows = len(self.plan.protocol.folds[task.key.fold].train)
            epochs = num_evaluations(task.candidate.settings, rows)
        self.time_left.start(task.key, epochs)
        self.feedback.cell_started(task.key, self.started_cells, len(self.plan.missing), epochs)

    def on_progress(self, task: CellTask, record: EpochRecord) -> bool:
        comments = record.comments or len(self.plan.protocol.folds[task.key.fold].train)
        self.time_left.finish_epoch(task.key, record)
        self.feedback.epoch_finished(task.key, record, comments, self.time_left.seconds())
        self._call_hook("toxbench_epoch_finished", cell=task.key, epoch=record)
        return True

    def done(self, task: CellTask, result: Computed) -> None:
        record, probabilities = result
        store = self.plan.store
        saved = self.plan.save_models if record.kind == "backbone" else None
        if saved is not None:
            publish_model(self.plan, saved, record, probabilities)
        store.write(record, probabilities)
        store.failures.remove(record.key)
        if saved is not None:
            store.models.remove_superseded(record.key)
        self.plan.checkpoints.delete(record.key.stem)
        self.time_left.finish(record.key)
        self.feedback.cell_finished(record, self.time_left.seconds())
        self._call_hook("toxbench_cell_finished", result=record)

    def failed(self, task: CellTask, error: TaskError) -> None:
        failure = Failure(task.key, error)
        self.failures.append(failure)
        kind = _KINDS.get(error.kind, error.kind)
        self.plan.store.failures.write(task.key, kind, error.reason)
        if error.kind not in PROCESS_ENDED:  # resuming would only raise the same error again
            self.plan.checkpoints.delete(task.key.stem)
        self.time_left.drop(task.key)
        self.feedback.cell_failed(failure)

    def _call_hook(self, hook: str, **arguments: object) -> None:
        for problem in self.plan.run.registry.notify(hook, **arguments):
            self.feedback.warn(str(problem))
        self.trackers.log(hook, **arguments)


def _time_left(plan: Plan, missing: Sequence[tuple[Candidate, CellKey]]) -> TimeLeft:
    return TimeLeft(
        {
            key: count_operations(plan, [(candidate, key)])
            for candidate, key in missing
            if isinstance(candidate, BackboneCandidate)
        }
    )


def _run_record(plan: Plan) -> RunRecord:
    has_backbones = any(isinstance(candidate, BackboneCandidate) for candidate in plan.candidates)
    return RunRecord(
        table=plan.protocol.comments.name,
        fingerprint=plan.protocol.fingerprint,
        synthetic=plan.is_synthetic,
        labels=plan.protocol.comments.labels,
        folds=len(plan.protocol.folds),
        seeds=plan.seeds,
        exploratory=has_backbones and plan.seeds < SEEDS_NEEDED,
    )


def _acquire_lock(store: CellStore, patience: float, stack: ExitStack, feedback: Feedback) -> None:
    """Lock the folder until the stack closes; warn before waiting for another run."""
    try:
        stack.enter_context(store.lock())
    except TryAgainError as error:
        if not patience:
            raise
        feedback.warn(f"{str(error).partition(';')[0]}; waiting for it")
        stack.enter_context(store.lock(patience))


def write_leaderboard(store: CellStore) -> Leaderboard:
    """Write leaderboard.md (with labels), .csv, .json and cells.parquet; return the leaderboard."""
    leaderboard = load_leaderboard(store)
    _, rows, cells = load_cells(store)
    labels = label_tables(with_label_intervals(leaderboard, rows, cells))
    registry = Registry.built_in()  # its formats, even if a plugin uses their names
    tables = {
        "md": [*leaderboard_tables(leaderboard), *labels],
        "csv": [leaderboard_table(leaderboard)],
        "json": [leaderboard_table(leaderboard)],
    }
    for suffix, name in (("md", "markdown"), ("csv", "csv"), ("json", "json")):
        render = registry.report_format(name).item.render
        content = "\n\n".join(render(table).strip() for table in tables[suffix]) + "\n"
        write_atomically(store.folder / f"leaderboard.{suffix}", content.encode("utf-8"))
    records = cell_records(leaderboard, (record for record, _ in cells))
    write_atomically(store.folder / "cells.parquet", _parquet(records))
    return leaderboard


def _parquet(cells: list[Record]) -> bytes:
    """Return scores of cells as a Parquet file, with one score a row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = {"candidate": pa.string(), "seed": pa.int64(), "fold": pa.int64()}
    scores = {"part": pa.string(), "metric": pa.string(), "value": pa.float64()}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(cells, pa.schema(names | scores)), buffer)
    return buffer.getvalue()
