"""One trial: trained, ended early or failed, and in every case recorded."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from statistics import fmean
from typing import Literal

import numpy as np
from optuna.distributions import distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from toxbench.benchmark.candidates import BackboneCandidate, BackboneSpec
from toxbench.benchmark.feedback import SearchFeedback
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.errors import StorageError
from toxbench.evaluation.metrics import average_precision
from toxbench.evaluation.thresholds import choose_thresholds
from toxbench.executors.base import RunnerConfig, TaskError, TaskSpec
from toxbench.plugin.registry import Registry
from toxbench.records import EpochRecord, Scores, TrialRecord
from toxbench.settings import TrainSettings
from toxbench.training.device import Device
from toxbench.training.process_group import ProcessGroup
from toxbench.training.trainer import Trainer
from toxbench.tuning.definition import InnerData, SearchSpec
from toxbench.tuning.sampler import pruning_step
from toxbench.tuning.study import SampledTrial, SharedStudy
from toxbench.util.arrays import Probabilities, Targets
from toxbench.util.redact import redact
from toxbench.util.signals import StopSource
from toxbench.util.text import escape_line

SCORE = "micro_average_precision"

OnEpoch = Callable[[int, EpochRecord], None]  # place of the fold, counted from 0, and the epoch


@dataclass(frozen=True)
class Result:
    """How a configuration did.

    Attributes:
        scores: micro average precision of each fold, after its last epoch.
        thresholds: rule -> threshold per label, chosen on the validation rows of all its folds.
    """

    scores: tuple[float, ...]
    thresholds: dict[str, tuple[float, ...]]


def train_on_folds(
    bench: TrainerFactory,
    data: InnerData,
    folds: Sequence[int],
    settings: TrainSettings,
    seed: int,
    on_epoch: OnEpoch,
) -> Result:
    """Train on one inner fold after the other, and score the last epoch on its validation rows.

    Args:
        bench: of the table in ``data``.
        data: rows that are not test rows.
        folds: which of its folds.
        settings: how to train; the last epoch counts, whatever ``selection`` says.
        seed: of every training.
        on_epoch: called after each epoch; what it raises ends the training.

    Raises:
        CellsFailedError: the training diverged.
        PluginError: the backbone breaks its contract.
    """
    scores: list[float] = []
    targets: list[Targets] = []
    probabilities: list[Probabilities] = []
    for place, fold in enumerate(folds):
        work = partial(_train, data, fold, seed, place, on_epoch)
        (last, predicted), _ = bench.with_trainer(settings, seed, work)
        scores.append(last)
        targets.append(data.comments.targets[data.folds[fold].validation])
        probabilities.append(predicted)
    thresholds = choose_thresholds(np.concatenate(targets), np.concatenate(probabilities))
    return Result(tuple(scores), thresholds)


def score_of(scores: Scores) -> float:
    """Return the objective's value after an epoch; inner folds always have a positive."""
    value = scores[SCORE]
    return 0.0 if value is None else value


def _train(
    data: InnerData, fold: int, seed: int, place: int, on_epoch: OnEpoch, trainer: Trainer
) -> tuple[float, Probabilities]:
    """Train on one fold; return score and validation probabilities of the last epoch."""
    last: list[Probabilities] = []

    def validate(targets: Targets, probabilities: Probabilities) -> Scores:
        last[:] = [probabilities]
        return {SCORE: average_precision(targets, probabilities)}

    trained = trainer.train(
        data.folds[fold], seed, validate, lambda scores: True, lambda e: on_epoch(place, e)
    )
    return score_of(trained.epochs[-1].validation), last[0]


Heard = tuple[int, EpochRecord]  # the place of a fold, counted from 0, and an epoch of it
State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Configuration:
    """What one trial trains.

    Attributes:
        settings: the hyperparameters.
        seed: of every training.
        folds: inner folds, in the order of training.
        default: these are the default settings; they are never ended early.
        seconds_left: of the budget.
    """

    settings: TrainSettings
    seed: int
    folds: tuple[int, ...]
    default: bool = False
    seconds_left: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a trial computes, without its study."""

    candidate: BackboneCandidate
    device: Device
    configuration: Configuration


@dataclass(frozen=True, kw_only=True)
class TrialTask(Training):
    """A trial as a task of an executor."""

    trial: Trial
    slot: int
    log: "TrialLog"

    @property
    def spec(self) -> "TrialSpec":
        """Describe the training to another process."""
        candidate = self.candidate
        return TrialSpec(
            plugin=candidate.plugin,
            reads=candidate.weights.folder,
            uses_gpu=self.device.kind == "cuda",
            backbone=BackboneSpec.of(candidate),
            device=self.device,
            configuration=self.configuration,
        )


@dataclass(frozen=True, kw_only=True)
class TrialSpec(TaskSpec):
    """A trial's training as plain values."""

    backbone: BackboneSpec
    device: Device
    configuration: Configuration

    def task(self, registry: Registry) -> Training:
        """Make the training again with this process's own plugins; see `TaskSpec`."""
        candidate = self.backbone.load(registry, self.reads)
        return Training(candidate=candidate, device=self.device, configuration=self.configuration)


@dataclass(frozen=True, kw_only=True)
class TrialRunnerConfig(RunnerConfig):
    """What a process needs once to train the trials of one search."""

    data: InnerData

    def runner(self, stop: StopSource, group: ProcessGroup | None = None) -> "TrialRunner":
        """Build the runner; see `RunnerConfig`."""
        return TrialRunner(self.data)


class TrialRunner:
    """Trains one trial at a time; what those of a backbone share is loaded once."""

    def __init__(self, data: InnerData) -> None:
        """Load nothing yet; ``data`` holds no test row."""
        self._data = data
        self._bench: tuple[str, TrainerFactory] | None = None

    def compute(self, task: Training, report: Callable[[Heard], None]) -> Result | TaskError:
        """Train a configuration on its inner folds; return how it did, or why it did not.

        Raises:
            StorageError: not the trial's fault.
        """
        chosen = task.configuration
        try:
            return train_on_folds(
                self._of(task), self._data, chosen.folds, chosen.settings, chosen.seed,
                lambda place, epoch: report((place, epoch)),
            )  # fmt: skip
        except StorageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded, and never the best
            return TaskError.of(error)

    def _of(self, task: Training) -> TrainerFactory:
        name, weights = task.candidate.name, task.candidate.weights
        if self._bench is None or self._bench[0] != name:
            comments = self._data.comments
            bench = TrainerFactory(
                task.candidate.backbone, weights, comments, task.device, keep_module=True
            )
            self._bench = name, bench
        return self._bench[1]


class EndedError(Exception):
    """The trial is ended early, and why."""


def record_of(
    study: str, task: TrialTask, result: Result | None, state: State, reason: str = ""
) -> TrialRecord:
    """Say how a trial went; its worker signs it."""
    trial, log, configuration = task.trial, task.log, task.configuration
    return TrialRecord(
        study=study,
        number=trial.number,
        state=state,
        reason=reason,
        is_default=configuration.default,
        params=trial.params,
        distributions={k: distribution_to_json(v) for k, v in trial.distributions.items()},
        settings=configuration.settings,
        seed=configuration.seed,
        folds=configuration.folds,
        value=fmean(result.scores) if result else None,
        scores=result.scores if result else (),
        epoch_scores=log.scores,
        step_scores=log.steps,
        epochs=log.epochs,
        seconds=log.seconds,
        thresholds=result.thresholds if result else {},
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def reuse_result(study: str, task: TrialTask, known: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the record of a trial whose very training is known: it would come out alike again."""
    same = _same(known, task.configuration)
    if same is None:
        return None
    task.log.scores, task.log.steps = dict(same.epoch_scores), dict(same.step_scores)
    reason = f"the same training as trial {same.number}"
    return record_of(study, task, Result(same.scores, same.thresholds), "complete", reason)


def failed(study: str, task: TrialTask, fault: TaskError) -> TrialRecord:
    """Return the record of a trial without a score."""
    message = escape_line(redact(fault.reason)) or "no message"
    return record_of(study, task, None, "failed", f"{fault.kind}: {message}")


class TrialLog:
    """What happens during one trial."""

    def __init__(
        self, trial: Trial, configuration: Configuration, feedback: SearchFeedback
    ) -> None:
        self.scores: dict[int, float] = {}
        self.steps: dict[int, float] = {}
        self.epochs = 0
        self.epochs_planned = configuration.settings.epochs * len(configuration.folds)
        self._trial = trial
        self._configuration = configuration
        self._feedback = feedback
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the trial began."""
        return time.monotonic() - self._started

    def begin(self) -> None:
        """Count the seconds from here."""
        self._started = time.monotonic()

    def hear(self, place: int, epoch: EpochRecord) -> None:
        """Note an epoch; raise `EndedError` where going on is not worth it."""
        self.epochs += 1
        step = pruning_step(epoch.epoch, self._configuration.settings.epochs)
        is_new = step > pruning_step(epoch.epoch - 1, self._configuration.settings.epochs)
        if place == 0:
            self.scores[epoch.epoch] = score_of(epoch.validation)
            if is_new:
                self.steps[step] = self.scores[epoch.epoch]
                self._trial.report(self.steps[step], step)
        self._feedback.trial_epoch(self._trial.number, epoch)
        if self._configuration.default or self.epochs == self.epochs_planned:
            return
        if self.seconds >= self._configuration.seconds_left:
            raise EndedError(f"the budget was spent after {self.epochs} epochs")
        if place == 0 and is_new and self._trial.should_prune():
            raise EndedError(f"too low after epoch {epoch.epoch}")


def _same(known: Sequence[TrialRecord], configuration: Configuration) -> TrialRecord | None:
    """Return a complete trial of the very same training: it would come out alike again."""
    wanted = (configuration.settings, configuration.seed, configuration.folds)
    return next(
        (
            record
            for record in known
            if record.state == "complete" and (record.settings, record.seed, record.folds) == wanted
        ),
        None,
    )


class TrialScheduler:
    """Makes tasks of the trials of a study, and hears of them."""

    def __init__(
        self, definition: SearchSpec, index: SharedStudy, feedback: SearchFeedback
    ) -> None:
        self._definition = definition
        self._index = index
        self._feedback = feedback

    def tasks(
        self,
        drawn: Iterable[SampledTrial | None],
        configure: Callable[[Trial, int], Configuration],
        known: Sequence[TrialRecord],
    ) -> Iterator[TrialTask | None]:
        """Yield trials to train; commit at once what the very same training gave before.

        Raises:
            StorageError, SQLAlchemyError, OptunaError: no trial's fault.
        """
        for one in drawn:
            if one is None:
                yield None
                continue
            trial, slot = one
            try:
                configuration = configure(trial, slot)
            except UpdateFinishedTrialError:  # taken for lost meanwhile
                self._index.leave(one)
                continue
            task = TrialTask(
                candidate=self._definition.candidate,
                device=self._definition.device,
                configuration=configuration,
                trial=trial,
                slot=slot,
                log=TrialLog(trial, configuration, self._feedback),
            )
            same = reuse_result(self._definition.name, task, known)
            if same is None:
                yield task
            else:
                self.started(task)
                self._commit(task, same)

    def started(self, task: TrialTask) -> None:
        """A trial begins."""
        task.log.begin()
        self._feedback.trial_started(
            self._definition.candidate.name,
            task.trial.number,
            task.configuration.default,
            task.log.epochs_planned,
        )

    def on_progress(self, task: TrialTask, report: Heard) -> bool:
        """Note an epoch; end the trial where going on is not worth it, or others have it."""
        try:
            task.log.hear(*report)
        except EndedError as ended:
            record = record_of(self._definition.name, task, None, "pruned", str(ended))
            self._commit(task, record)
            return False
        except UpdateFinishedTrialError:  # taken for lost meanwhile
            self._index.leave((task.trial, task.slot))
            return False
        return True

    def done(self, task: TrialTask, result: Result) -> None:
        """A trial has its score."""
        self._commit(task, record_of(self._definition.name, task, result, "complete"))

    def failed(self, task: TrialTask, fault: TaskError) -> None:
        """A trial has none."""
        self._commit(task, failed(self._definition.name, task, fault))

    def _commit(self, task: TrialTask, record: TrialRecord) -> None:
        signed = self._index.commit((task.trial, task.slot), record)
        if signed is not None:
            self._feedback.trial_finished(self._definition.candidate.name, signed)
