"""One trial: trained, ended early or failed, and in every case recorded."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import Literal

from optuna.distributions import distribution_to_json
from optuna.exceptions import OptunaError
from optuna.trial import Trial
from sqlalchemy.exc import SQLAlchemyError

from toxbench.benchmark.workbench import Workbench
from toxbench.errors import StorageError
from toxbench.records import EpochRecord, TrialRecord
from toxbench.report.words import printable
from toxbench.settings import TrainSettings
from toxbench.store.private import scrubbed
from toxbench.tuning.definition import Definition
from toxbench.tuning.progress import SearchFeedback
from toxbench.tuning.sampling import pruning_step
from toxbench.tuning.training import Result, score_of, train_on_folds

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


class EndedError(Exception):
    """The trial is ended early, and why."""


class TrialRunner:
    """Trains the trials of one search; what they share is loaded once."""

    def __init__(self, definition: Definition, feedback: SearchFeedback) -> None:
        self._definition = definition
        self._feedback = feedback
        candidate = definition.candidate
        self._bench = Workbench(
            candidate.backbone,
            candidate.weights,
            definition.data.comments,
            definition.device,
            keep_module=True,
        )

    def run(
        self, trial: Trial, configuration: Configuration, known: Sequence[TrialRecord]
    ) -> TrialRecord:
        """Train a configuration on inner folds, and say how it went.

        A training that diverges or raises is recorded as failed. What the very same training gave
        before is taken from ``known``.

        Raises:
            StorageError, SQLAlchemyError, OptunaError: not the trial's fault.
        """
        log = _Log(trial, configuration, self._feedback)
        name = self._definition.candidate.name
        self._feedback.trial_started(name, trial.number, configuration.default, log.epochs_planned)
        same = _same(known, configuration)
        if same is not None:
            log.scores, log.steps = dict(same.epoch_scores), dict(same.step_scores)
            result: Result | None = Result(same.scores, same.thresholds)
            state: State = "complete"
            reason = f"the same training as trial {same.number}"
        else:
            result, state, reason = self._train(configuration, log)
        return self._record(trial, configuration, log, result, state, reason)

    def _train(self, configuration: Configuration, log: "_Log") -> tuple[Result | None, State, str]:
        try:
            result = train_on_folds(
                self._bench,
                self._definition.data,
                configuration.folds,
                configuration.settings,
                configuration.seed,
                log.hear,
            )
        except (StorageError, SQLAlchemyError, OptunaError):
            raise
        except EndedError as ended:
            return None, "pruned", str(ended)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded, and never the best
            message = printable(scrubbed(" ".join(str(error).split()))) or "no message"
            return None, "failed", f"{type(error).__name__}: {message}"
        return result, "complete", ""

    def _record(
        self,
        trial: Trial,
        configuration: Configuration,
        log: "_Log",
        result: Result | None,
        state: State,
        reason: str,
    ) -> TrialRecord:
        return TrialRecord(
            study=self._definition.name,
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


class _Log:
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
