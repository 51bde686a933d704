"""Measurements of the speed of backbones on this device, and the table of measured speeds."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.benchmark.plan import backbone_candidate
from toxbench.benchmark.resources import body_parameters, environment
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.benchmark.validate import ResolvedRun
from toxbench.data.load import load_dataset
from toxbench.data.protocol import Split
from toxbench.data.table import TextDataset
from toxbench.data.tokenization import Tokens
from toxbench.errors import PluginError, SettingsError
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.plugin.contracts import Table
from toxbench.records import SpeedRecord, Spread
from toxbench.report.tables import Record
from toxbench.settings import TrainSettings
from toxbench.training.device import Device, PeakMemory, choose_device, matrix_peak, wait_for_device
from toxbench.training.trainer import Trainer
from toxbench.training.weights import WeightsFinder
from toxbench.util.arrays import Rows
from toxbench.util.text import count_of, escape_line, format_millions

WARM_UP_BATCHES = 4
_OPERATIONS = 6  # per parameter and token in training (Kaplan et al. 2020, arXiv:2001.08361)

ReportProgress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Task:
    """The training of one backbone on one table.

    Attributes:
        candidate: the backbone with its weights and settings.
        comments: the table.
        split: an epoch is one pass over its train rows; it has no validation rows.
        device: the device and the precision.
    """

    candidate: BackboneCandidate
    comments: TextDataset
    split: Split
    device: Device

    @cached_property
    def trainer_factory(self) -> TrainerFactory:
        """Makes the trainers; holds the tokenizer, tokens and weights that they share."""
        candidate = self.candidate
        return TrainerFactory(
            candidate.backbone, candidate.weights, self.comments, self.device,
            candidate.distribution,
        )  # fmt: skip

    @property
    def settings(self) -> TrainSettings:
        """The training settings."""
        return self.candidate.settings

    @property
    def rows(self) -> Rows:
        """The train rows."""
        return self.split.train

    @property
    def tokens(self) -> Tokens:
        """The tokens of all rows of the table."""
        return self.trainer_factory.tokens(self.settings)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of the train rows, padding not counted."""
        return int(self.tokens.lengths[self.rows].sum())

    @property
    def folder(self) -> Path:
        """The checkpoint folder of the weights."""
        folder = self.candidate.weights.folder
        if folder is None:
            raise PluginError(f"the weights of {self.candidate.name} are not downloaded")
        return folder

    @cached_property
    def body_parameters(self) -> int:
        """Number of parameters without embedding tables."""
        return body_parameters(self.folder)

    def share_of_peak(self, seconds_per_epoch: float, peak: float) -> float:
        """Return the share of ``peak``, in operations per second, that the training reached."""
        operations = _OPERATIONS * self.body_parameters * self.tokens_per_epoch
        return operations / seconds_per_epoch / peak


@dataclass(frozen=True)
class TimedTraining:
    """One timed training; building the module is not included.

    Attributes:
        seconds: time of the whole training.
        peak_memory_bytes: peak memory during the training.
    """

    seconds: float
    peak_memory_bytes: int | None


Run = tuple[TimedTraining, float]  # the training, and the seconds to predict all rows


def measure(
    run: ResolvedRun, repeats: int, report_progress: ReportProgress
) -> Iterator[SpeedRecord]:
    """Measure each backbone in some timed runs, and yield its record; nothing is stored.

    Raises:
        SettingsError, DataError, PluginError, StorageError, TryAgainError: as a run would.
        CellsFailedError: a training diverged.
    """
    for task in speed_tasks(run):
        if task.candidate.weights.warning is not None:
            report_progress(f"toxbench: warning: {task.candidate.weights.warning}")
        peak = matrix_peak(task.device)
        runs = list(_runs(task, repeats, report_progress))
        yield _record(task, runs, max(peak, matrix_peak(task.device)))


def speed_tasks(run: ResolvedRun) -> Iterator[Task]:
    """Yield the task of each backbone; raises as `measure`."""
    settings = run.settings
    if not run.backbones:
        raise SettingsError("no backbone to measure; name some: --backbones bert,distilbert")
    source = load_dataset(settings.data, settings.columns, run.split)
    fold = source.folds[0]
    # Validation rows are left out: scoring them after each epoch is not training.
    split = replace(fold, validation=fold.validation[:0])
    finder = WeightsFinder(run.weights)
    for backbone in run.backbones:
        candidate = backbone_candidate(backbone, settings, finder, len(source.comments.labels))
        device = choose_device(settings.device, candidate.settings.precision)
        yield Task(candidate, source.comments, split, device)


def warm_up(task: Task) -> None:
    """Train on a few batches for one epoch and predict them."""
    settings = task.settings.model_copy(update={"epochs": 1})
    rows = task.rows[: WARM_UP_BATCHES * settings.batch_size]
    with task.trainer_factory.trainer(settings, seed=0) as trainer:
        _train(trainer, replace(task.split, train=rows))
        trainer.predict(rows)


def timed_run(task: Task) -> Run:
    """Train all epochs, then predict all rows of the table, and measure both."""
    rows = np.arange(len(task.comments), dtype=np.int64)
    with task.trainer_factory.trainer(task.settings, seed=0) as trainer:
        training = timed_training(task.device, lambda: _train(trainer, task.split))
        started = time.perf_counter()
        trainer.predict(rows)
        wait_for_device(task.device)
        return training, time.perf_counter() - started


def timed_training(device: Device, train: Callable[[], object]) -> TimedTraining:
    """Measure the time and the peak memory of a training."""
    gc.collect()  # so that the previous module's memory does not count
    memory = PeakMemory(device)
    memory.start()
    wait_for_device(device)
    started = time.perf_counter()
    train()
    wait_for_device(device)
    return TimedTraining(time.perf_counter() - started, memory.read())


def _train(trainer: Trainer, split: Split) -> None:
    trainer.train(split, 0, epoch_scores, lambda epoch: None)


def _runs(task: Task, repeats: int, report_progress: ReportProgress) -> Iterator[Run]:
    name = task.candidate.name
    report_progress(f"[{name}] warm-up")
    warm_up(task)
    for number in range(1, repeats + 1):
        run = timed_run(task)
        epoch = run[0].seconds / task.settings.epochs
        report_progress(f"[{name}] run {number} of {repeats}: {epoch:.2f} s an epoch")
        yield run


def _record(task: Task, runs: Sequence[Run], peak: float) -> SpeedRecord:
    weights, settings = task.candidate.weights.record, task.settings
    epochs = [training.seconds / settings.epochs for training, _ in runs]
    rows, tokens = len(task.rows), task.tokens_per_epoch
    peaks = [training.peak_memory_bytes for training, _ in runs]
    return SpeedRecord(
        backbone=task.candidate.name,
        weights=weights.label,
        source=weights.source,
        body_parameters=task.body_parameters,
        **environment(task.device).model_dump(exclude={"commit"}),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        table=task.comments.name,
        **settings.model_dump(include={"batch_size", "max_length", "epochs"}),
        repeats=len(runs),
        rows=rows,
        tokens=tokens,
        seconds_per_epoch=Spread.of(epochs),
        comments_per_second=Spread.of([rows / epoch for epoch in epochs]),
        tokens_per_second=Spread.of([tokens / epoch for epoch in epochs]),
        evaluation_comments_per_second=Spread.of(
            [len(task.comments) / seconds for _, seconds in runs]
        ),
        peak_operations_per_second=peak,
        share_of_peak=Spread.of([task.share_of_peak(epoch, peak) for epoch in epochs]),
        peak_memory_bytes=max((peak for peak in peaks if peak is not None), default=None),
    )


def speed_table(records: Sequence[SpeedRecord]) -> Table:
    """Return one row for each record; ``records`` has at least one."""
    return Table(
        title="Speed",
        headers=tuple(title for title, _ in _COLUMNS),
        rows=tuple(tuple(escape_line(text(record)) for _, text in _COLUMNS) for record in records),
        notes=tuple(map(escape_line, _notes(records))),
        records=tuple(map(_flatten, records)),
    )


def _flatten(record: SpeedRecord) -> Record:
    """Return a record as unrounded values: a spread becomes three columns."""
    flat: Record = {}
    for name, value in record:
        if isinstance(value, Spread):
            flat |= {name: value.median, f"{name}_low": value.low, f"{name}_high": value.high}
        elif name == "versions":
            flat |= {f"version_{package}": version for package, version in value.items()}
        else:
            flat[name] = escape_line(value) if isinstance(value, str) else value
    return flat


def _notes(records: Sequence[SpeedRecord]) -> Iterator[str]:
    first = records[0]
    yield _machine_note(first)
    yield (
        f"Data: {first.table}. An epoch is {first.rows} train rows, truncated at "
        f"{first.max_length} tokens. Padding tokens are not counted."
    )
    yield (
        f"Median of {count_of(first.repeats, 'run')} of {count_of(first.epochs, 'epoch')} each; "
        "[lowest, highest]."
    )
    yield from map(_weights_note, records)
    yield _peak_note(records)
    if first.device != "cuda":
        yield "Peak memory is that of the process, including all imported packages."


def _machine_note(record: SpeedRecord) -> str:
    versions = ", ".join(
        f"{name} {record.versions[name]}" for name in ("toxbench", "torch", "transformers")
    )
    threads = f", {count_of(record.threads, 'thread')}" if record.device == "cpu" else ""
    return f"Measured {record.measured_at[:10]} on {record.device_name}{threads}; {versions}."


def _weights_note(record: SpeedRecord) -> str:
    note = (
        f"{record.backbone}: {record.weights}; {format_millions(record.body_parameters)} "
        f"parameters without embeddings; {record.tokens} tokens/epoch."
    )
    if record.source == "stand-in":
        note += " A small model, not the checkpoint that the backbone is named after."
    return note


def _peak_note(records: Sequence[SpeedRecord]) -> str:
    peaks = {record.precision: record.peak_operations_per_second for record in records}
    speeds = " and ".join(f"{peak / 1e9:.0f} GFLOP/s in {name}" for name, peak in peaks.items())
    return (
        "MFU (model FLOPs utilization): 6 FLOPs per parameter (without embeddings) and token, "
        f"relative to the measured peak of a large matrix product: {speeds}."
    )


def _spread(pattern: str, spread: Spread) -> str:
    return f"{pattern} [{pattern}, {pattern}]".format(spread.median, spread.low, spread.high)


def _mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f} MiB"


_COLUMNS: Sequence[tuple[str, Callable[[SpeedRecord], str]]] = (
    ("backbone", lambda record: record.backbone),
    ("precision", lambda record: record.precision),
    ("seconds/epoch", lambda record: _spread("{:.2f}", record.seconds_per_epoch)),
    ("train comments/s", lambda record: f"{record.comments_per_second.median:.1f}"),
    ("train tokens/s", lambda record: f"{record.tokens_per_second.median:.0f}"),
    ("evaluation comments/s",
     lambda record: f"{record.evaluation_comments_per_second.median:.0f}"),
    ("MFU", lambda record: f"{record.share_of_peak.median:.0%}"),
    ("peak memory", lambda record: _mebibytes(record.peak_memory_bytes)),
)  # fmt: skip
