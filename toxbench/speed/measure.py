"""Measuring how fast toxbench trains and scores backbones on this device."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.benchmark.environment import environment
from toxbench.benchmark.estimate import body_parameters
from toxbench.benchmark.plan import backbone_candidate
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.benchmark.validate import ResolvedRun
from toxbench.data.load import load_dataset
from toxbench.data.protocol import Split
from toxbench.data.table import TextDataset
from toxbench.data.tokenization import Tokens
from toxbench.errors import PluginError, SettingsError
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.records import SpeedRecord, Spread
from toxbench.settings import TrainSettings
from toxbench.training.device import Device, PeakMemory, choose_device, matrix_peak, wait_for_device
from toxbench.training.trainer import Trainer
from toxbench.training.weights import WeightsFinder
from toxbench.util.arrays import Rows

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
