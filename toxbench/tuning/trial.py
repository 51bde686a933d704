"""Trials: their training on inner folds, their tasks for an executor, and their records."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from statistics import fmean
from typing import Literal

import numpy as np
from optuna.distributions import distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from toxbench.benchmark.candidates import BackboneCandidate, BackboneSpec
from toxbench.benchmark.progress import SearchFeedback
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.data.protocol import Protocol
from toxbench.errors import StorageError
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.evaluation.thresholds import choose_thresholds
from toxbench.executors.base import RunnerConfig, TaskError, TaskSpec
from toxbench.plugin.registry import Registry
from toxbench.records import EpochRecord, Scores, TrialRecord
from toxbench.settings import SearchCost, TrainSettings
from toxbench.training.device import Device
from toxbench.training.process_group import ProcessGroup
from toxbench.training.trainer import Trainer
from toxbench.tuning.spec import SearchSpec, pruning_step
from toxbench.tuning.study import SampledTrial, SharedStudy
from toxbench.util.arrays import Probabilities, Targets
from toxbench.util.processes import StopSource
from toxbench.util.text import escape_line, redact

EpochReport = tuple[int, EpochRecord]  # the fold's position in the trial, from 0, and an epoch
OnEpoch = Callable[[int, EpochRecord], None]  # arguments as `EpochReport`
State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """The scores of a configuration.

    Attributes:
        scores: on the validation rows of each fold, after its last epoch.
        thresholds: rule -> threshold per label, chosen on the validation rows of all its folds.
        costs: means over the folds of the costs that the configuration names.
    """

    scores: tuple[float, ...]
    thresholds: dict[str, tuple[float, ...]]
    costs: dict[SearchCost, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Configuration:
    """Settings, seed and folds of a trial's trainings.

    Attributes:
        settings: the hyperparameters.
        seed: of every training.
        folds: inner folds, in the order of training.
        is_default: these are the default settings; their trial never ends early.
        costs: objectives that are minimized; trials with costs are not pruned.
        seconds_left: of the budget.
    """

    settings: TrainSettings
    seed: int
    folds: tuple[int, ...]
    is_default: bool = False
    costs: tuple[SearchCost, ...] = ()
    seconds_left: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class Training:
    """The part of a trial that can run in another process."""

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
        """The training as plain values."""
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
    """A trial's training as plain values, for another process."""

    backbone: BackboneSpec
    device: Device
    configuration: Configuration

    def task(self, registry: Registry) -> Training:
        """Build the training with the plugins of this process; see `TaskSpec`."""
        candidate = self.backbone.load(registry, self.reads)
        return Training(candidate=candidate, device=self.device, configuration=self.configuration)


@dataclass(frozen=True, kw_only=True)
class TrialRunnerConfig(RunnerConfig):
    """What a process needs once to train the trials of one search."""

    data: Protocol
    metric: str

    def runner(self, stop: StopSource, group: ProcessGroup | None = None) -> "TrialRunner":
        """Build the runner; see `RunnerConfig`."""
        return TrialRunner(self.data, self.metric)


@dataclass
class TrialRunner:
    """Trains one trial at a time; the tokens and weights of a backbone are loaded once."""

    data: Protocol
    metric: str
    _factory: tuple[str, TrainerFactory] | None = None  # with the backbone's name

    def compute(
        self, task: Training, report: Callable[[EpochReport], None]
    ) -> TrialResult | TaskError:
        """Train a configuration on its inner folds; return its scores or the error.

        Raises:
            StorageError: the disk fails, which is not specific to the trial.
        """
        configuration = task.configuration
        try:
            return train_on_folds(
                self._factory_of(task), self.data, configuration, self.metric,
                lambda position, epoch: report((position, epoch)),
            )  # fmt: skip
        except StorageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded as a failed trial
            return TaskError.of(error, self.data.comments.texts)

    def _factory_of(self, task: Training) -> TrainerFactory:
        candidate, name = task.candidate, task.candidate.name
        if self._factory is None or self._factory[0] != name:
            factory = TrainerFactory(
                candidate.backbone, candidate.weights, self.data.comments, task.device,
                candidate.distribution, keep_module=True,
            )  # fmt: skip
            self._factory = name, factory
        return self._factory[1]


def train_on_folds(
    factory: TrainerFactory,
    data: Protocol,
    configuration: Configuration,
    metric: str,
    on_epoch: OnEpoch,
) -> TrialResult:
    """Train on one inner fold after another; score each last epoch on the fold's validation rows.

    An error of ``on_epoch`` ends the training.

    Raises:
        CellsFailedError: the training diverged.
        PluginError: the backbone breaks its contract.
    """
    results: list[_FoldResult] = []
    targets: list[Targets] = []
    for position, fold in enumerate(configuration.folds):
        work = partial(_train_on_fold, data, configuration, position, metric, on_epoch)
        result, _ = factory.with_trainer(configuration.settings, configuration.seed, work)
        results.append(result)
        targets.append(data.comments.targets[data.folds[fold].validation])
    probabilities = np.concatenate([result.probabilities for result in results])
    return TrialResult(
        scores=tuple(result.score for result in results),
        thresholds=choose_thresholds(np.concatenate(targets), probabilities),
        costs={name: fmean(r.costs[name] for r in results) for name in configuration.costs},
    )


def objective(scores: Scores, metric: str) -> float:
    """Return the value to maximize: the score, or 0 if it is undefined."""
    value = scores[metric]
    return 0.0 if value is None else value


class TrialStoppedError(Exception):
    """The trial ends early, for the reason in the message."""


class TrialLog:
    """Scores, epochs and seconds of a running trial."""

    def __init__(
        self, trial: Trial, configuration: Configuration, metric: str, feedback: SearchFeedback
    ) -> None:
        self.epoch_scores: dict[int, float] = {}
        self.step_scores: dict[int, float] = {}
        self.epochs = 0
        self.epochs_planned = configuration.settings.epochs * len(configuration.folds)
        self._trial = trial
        self._configuration = configuration
        self._metric = metric
        self._feedback = feedback
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the trial started."""
        return time.monotonic() - self._started

    def start(self) -> None:
        """Count the seconds from now."""
        self._started = time.monotonic()

    def add_epoch(self, position: int, epoch: EpochRecord) -> None:
        """Add an epoch of the fold at ``position``, and report it to the pruner and the feedback.

        Raises:
            TrialStoppedError: the trial is pruned, or the budget is spent.
        """
        self.epochs += 1
        step = pruning_step(epoch.epoch, self._configuration.settings.epochs)
        is_new_step = step > pruning_step(epoch.epoch - 1, self._configuration.settings.epochs)
        # Optuna compares trials of one objective only.
        is_compared = position == 0 and is_new_step and not self._configuration.costs
        score = objective(epoch.validation, self._metric)
        if position == 0:
            self.epoch_scores[epoch.epoch] = score
        if is_compared:
            self.step_scores[step] = score
            self._trial.report(score, step)
        self._feedback.trial_epoch(self._trial.number, score)
        if self._configuration.is_default or self.epochs == self.epochs_planned:
            return
        if self.seconds >= self._configuration.seconds_left:
            raise TrialStoppedError(f"the budget was spent after {self.epochs} epochs")
        if is_compared and self._trial.should_prune():
            raise TrialStoppedError(f"too low after epoch {epoch.epoch}")


@dataclass(frozen=True)
class TrialScheduler:
    """Makes tasks of the trials of a study, and commits their results."""

    spec: SearchSpec
    study: SharedStudy
    feedback: SearchFeedback

    def tasks(
        self,
        sampled_trials: Iterable[SampledTrial | None],
        configure: Callable[[Trial, int], Configuration],
        records: Sequence[TrialRecord],
    ) -> Iterator[TrialTask | None]:
        """Yield trials to train; commit at once those whose training is in ``records`` already.

        More records may be added while the tasks are computed.

        Raises:
            StorageError, SQLAlchemyError, OptunaError: the storage fails for every trial.
        """
        for sampled_trial in sampled_trials:
            if sampled_trial is None:
                yield None
                continue
            trial, slot = sampled_trial
            try:
                configuration = configure(trial, slot)
            except UpdateFinishedTrialError:  # declared lost by another worker
                self.study.release(sampled_trial)
                continue
            task = TrialTask(
                candidate=self.spec.candidate,
                device=self.spec.device,
                configuration=configuration,
                trial=trial,
                slot=slot,
                log=TrialLog(trial, configuration, self.spec.settings.metric, self.feedback),
            )
            record = _reuse_record(self.spec, task, records)
            if record is None:
                yield task
            else:
                self.started(task)
                self._commit(task, record)

    def started(self, task: TrialTask) -> None:
        """A trial starts."""
        task.log.start()
        self.feedback.trial_started(
            self.spec.title,
            task.trial.number,
            task.configuration.is_default,
            task.log.epochs_planned,
        )

    def on_progress(self, task: TrialTask, report: EpochReport) -> bool:
        """Add an epoch; return False to end a trial that is pruned or was declared lost."""
        try:
            task.log.add_epoch(*report)
        except TrialStoppedError as error:
            self._commit(task, _make_record(self.spec, task, None, "pruned", str(error)))
            return False
        except UpdateFinishedTrialError:  # declared lost by another worker
            self.study.release((task.trial, task.slot))
            return False
        return True

    def done(self, task: TrialTask, result: TrialResult) -> None:
        """A trial has its scores."""
        self._commit(task, _make_record(self.spec, task, result, "complete"))

    def failed(self, task: TrialTask, error: TaskError) -> None:
        """A trial failed."""
        message = escape_line(redact(error.reason)) or "no message"
        reason = f"{error.kind}: {message}"
        self._commit(task, _make_record(self.spec, task, None, "failed", reason))

    def _commit(self, task: TrialTask, record: TrialRecord) -> None:
        signed = self.study.commit((task.trial, task.slot), record)
        if signed is not None:
            self.feedback.trial_finished(self.spec.title, signed)


@dataclass(frozen=True)
class _FoldResult:
    """The score, the costs and the validation probabilities of one fold after its last epoch."""

    score: float
    costs: dict[SearchCost, float]
    probabilities: Probabilities


def _train_on_fold(
    data: Protocol,
    configuration: Configuration,
    position: int,
    metric: str,
    on_epoch: OnEpoch,
    trainer: Trainer,
) -> _FoldResult:
    """Train on one fold of a configuration."""
    split = data.folds[configuration.folds[position]]
    last: list[Probabilities] = []

    def validate(targets: Targets, probabilities: Probabilities) -> Scores:
        last[:] = [probabilities]
        return epoch_scores(targets, probabilities)

    result = trainer.train(split, configuration.seed, validate, partial(on_epoch, position))
    score = objective(result.epochs[-1].validation, metric)
    costs: dict[SearchCost, float] = {"seconds": result.train_seconds}
    if "gap" in configuration.costs:
        train_targets = data.comments.targets[split.train]
        train_scores = epoch_scores(train_targets, trainer.predict(split.train))
        costs["gap"] = objective(train_scores, metric) - score
    return _FoldResult(score, costs, last[0])


def _make_record(
    spec: SearchSpec, task: TrialTask, result: TrialResult | None, state: State, reason: str = ""
) -> TrialRecord:
    """Make the record of a trial; `SharedStudy.commit` signs it."""
    trial, log, configuration = task.trial, task.log, task.configuration
    return TrialRecord(
        study=spec.name,
        number=trial.number,
        state=state,
        reason=reason,
        is_default=configuration.is_default,
        params=trial.params,
        distributions={k: distribution_to_json(v) for k, v in trial.distributions.items()},
        settings=configuration.settings,
        seed=configuration.seed,
        folds=configuration.folds,
        metric=spec.settings.metric,
        value=fmean(result.scores) if result else None,
        costs=result.costs if result else {},
        scores=result.scores if result else (),
        epoch_scores=log.epoch_scores,
        step_scores=log.step_scores,
        epochs=log.epochs,
        seconds=log.seconds,
        thresholds=result.thresholds if result else {},
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _reuse_record(
    spec: SearchSpec, task: TrialTask, records: Sequence[TrialRecord]
) -> TrialRecord | None:
    """Make the record of a trial from a complete one with the same settings, seed and folds.

    The same training gives the same result. Returns None without such a record.
    """
    configuration = task.configuration
    key = (configuration.settings, configuration.seed, configuration.folds)
    for record in records:
        if record.state == "complete" and (record.settings, record.seed, record.folds) == key:
            task.log.epoch_scores = dict(record.epoch_scores)
            task.log.step_scores = dict(record.step_scores)
            result = TrialResult(record.scores, record.thresholds, record.costs)
            reason = f"the same training as trial {record.number}"
            return _make_record(spec, task, result, "complete", reason)
    return None
