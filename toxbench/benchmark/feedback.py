"""Callbacks with which a run or a search reports its progress."""

from dataclasses import dataclass

from toxbench.executors.base import TaskError
from toxbench.records import CellKey, CellRecord, EpochRecord, TrialRecord


@dataclass(frozen=True)
class Failure:
    """A cell without a result, and the reason."""

    key: CellKey
    error: TaskError

    def __str__(self) -> str:
        name = f"cell {self.key.candidate} seed {self.key.seed}"
        return f"{name} failed: {self.error.kind}: {self.error.reason}"


@dataclass(frozen=True)
class SearchProgress:
    """The state of a search; scores are micro average precision on inner validation rows.

    Attributes:
        backbone: that is tuned.
        phase: ``search`` or ``finalists``.
        finished: trials with a record, pruned and failed ones included.
        limit: number of finished trials to reach; None if only the budget limits them.
        pruned: finished trials that ended early.
        failed: finished trials with an error.
        best: highest score; None before the first.
        seconds_left: estimate; None if unknown.
    """

    backbone: str
    phase: str
    finished: int
    limit: int | None
    pruned: int
    failed: int
    best: float | None
    seconds_left: float | None


class Feedback:
    """Callbacks of a run; each does nothing unless it is overridden."""

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """A cell starts: ``number`` of ``total``, counted from 1; baselines have no epochs."""

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """An epoch over ``comments`` train rows ended; the run takes ``seconds_left`` more."""

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """A cell was stored; ``seconds_left`` is None if no epoch was measured."""

    def cell_failed(self, failure: Failure) -> None:
        """A cell has no result; the run continues."""

    def warn(self, message: str) -> None:
        """Report a warning of one line."""


class SearchFeedback:
    """Callbacks of a search; each does nothing unless it is overridden."""

    def trial_started(self, backbone: str, number: int, default: bool, epochs: int) -> None:
        """A trial of this process starts, with at most ``epochs`` epochs over all its folds."""

    def trial_epoch(self, number: int, score: float) -> None:
        """An epoch of a trial ended with this value of the objective."""

    def trial_finished(self, backbone: str, record: TrialRecord) -> None:
        """A trial of this process was stored."""

    def search_progress(self, progress: SearchProgress) -> None:
        """The search changed, in this worker or another one."""


class TuneFeedback(Feedback, SearchFeedback):
    """Callbacks of searches and of the cells at their end."""
