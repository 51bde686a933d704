"""One trial: trained, ended early or failed, and in every case recorded."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import Literal

from optuna.distributions import distribution_to_json
from optuna.trial import Trial

from toxbench.benchmark.candidates import (
    BackboneCandidate,
    BackboneValues,
    backbone_again,
    backbone_values,
)
from toxbench.benchmark.feedback import SearchFeedback
from toxbench.benchmark.trainer_factory import Workbench
from toxbench.errors import StorageError
from toxbench.executors.base import Fault, Job, Setup
from toxbench.interruption import Interruption
from toxbench.plugin.registry import Registry
from toxbench.records import EpochRecord, TrialRecord
from toxbench.report.words import printable
from toxbench.settings import TrainSettings
from toxbench.store.private import scrubbed
from toxbench.training.device import Device
from toxbench.tuning.inner import InnerData
from toxbench.tuning.sampling import pruning_step
from toxbench.tuning.training import Result, score_of, train_on_folds

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
    def job(self) -> "TrialJob":
        """Describe the training to another process."""
        candidate = self.candidate
        return TrialJob(
            plugin=candidate.plugin,
            reads=candidate.weights.folder,
            uses_gpu=self.device.kind == "cuda",
            name=candidate.name,
            distribution=candidate.distribution,
            backbone=backbone_values(candidate),
            device=self.device,
            configuration=self.configuration,
        )


@dataclass(frozen=True, kw_only=True)
class TrialJob(Job):
    """A trial's training as plain values."""

    name: str
    distribution: str
    backbone: BackboneValues
    device: Device
    configuration: Configuration

    def task(self, registry: Registry) -> Training:
        """Make the training again with this process's own plugins; see `Job`."""
        candidate = backbone_again(self.name, self, self.distribution, self.backbone, registry)
        return Training(candidate=candidate, device=self.device, configuration=self.configuration)


@dataclass(frozen=True, kw_only=True)
class TrialSetup(Setup):
    """What a process needs once to train the trials of one search."""

    data: InnerData

    def station(self, interruption: Interruption) -> "TrialStation":
        """Make what trains."""
        return TrialStation(self.data)


class TrialStation:
    """Trains one trial at a time; what those of a backbone share is loaded once."""

    def __init__(self, data: InnerData) -> None:
        """Load nothing yet; ``data`` holds no test row."""
        self._data = data
        self._bench: tuple[str, Workbench] | None = None

    def compute(self, task: Training, tell: Callable[[Heard], None]) -> Result | Fault:
        """Train a configuration on its inner folds; return how it did, or why it did not.

        Raises:
            StorageError: not the trial's fault.
        """
        chosen = task.configuration
        try:
            return train_on_folds(
                self._of(task), self._data, chosen.folds, chosen.settings, chosen.seed,
                lambda place, epoch: tell((place, epoch)),
            )  # fmt: skip
        except StorageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded, and never the best
            return Fault.of(error)

    def _of(self, task: Training) -> Workbench:
        name, weights = task.candidate.name, task.candidate.weights
        if self._bench is None or self._bench[0] != name:
            comments = self._data.comments
            bench = Workbench(
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
        default=configuration.default,
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
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def repeated(study: str, task: TrialTask, known: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the record of a trial whose very training is known: it would come out alike again."""
    same = _same(known, task.configuration)
    if same is None:
        return None
    task.log.scores, task.log.steps = dict(same.epoch_scores), dict(same.step_scores)
    reason = f"the same training as trial {same.number}"
    return record_of(study, task, Result(same.scores, same.thresholds), "complete", reason)


def failed(study: str, task: TrialTask, fault: Fault) -> TrialRecord:
    """Return the record of a trial without a score."""
    message = printable(scrubbed(fault.reason)) or "no message"
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
