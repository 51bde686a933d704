"""Trials as an executor sees them: drawn when there is room, ended early, and committed."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from toxbench.benchmark.feedback import SearchFeedback
from toxbench.executors.base import Fault
from toxbench.records import TrialRecord
from toxbench.tuning.definition import Definition
from toxbench.tuning.index import Drawn, StudyIndex
from toxbench.tuning.training import Result
from toxbench.tuning.trial import (
    Configuration,
    EndedError,
    Heard,
    TrialLog,
    TrialTask,
    failed,
    record_of,
    repeated,
)


class TrialWork:
    """Makes tasks of the trials of a study, and hears of them."""

    def __init__(self, definition: Definition, index: StudyIndex, feedback: SearchFeedback) -> None:
        self._definition = definition
        self._index = index
        self._feedback = feedback

    def tasks(
        self,
        drawn: Iterable[Drawn | None],
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
            same = repeated(self._definition.name, task, known)
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

    def heard(self, task: TrialTask, report: Heard) -> bool:
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

    def failed(self, task: TrialTask, fault: Fault) -> None:
        """A trial has none."""
        self._commit(task, failed(self._definition.name, task, fault))

    def _commit(self, task: TrialTask, record: TrialRecord) -> None:
        signed = self._index.commit((task.trial, task.slot), record)
        if signed is not None:
            self._feedback.trial_finished(self._definition.candidate.name, signed)
