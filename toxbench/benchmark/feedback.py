"""What is told while a search goes on."""

from dataclasses import dataclass
from typing import Protocol

from toxbench.executors.base import TaskError
from toxbench.records import CellKey, CellRecord, EpochRecord, TrialRecord


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is; scores are micro average precision on inner validation rows."""

    backbone: str
    phase: str
    finished: int
    wanted: int | None
    pruned: int
    failed: int
    best: float | None
    seconds_left: float | None


class SearchFeedback(Protocol):
    """Hears how a search goes on."""

    def trial_started(self, backbone: str, number: int, default: bool, epochs: int) -> None:
        """A trial of this process begins, of at most so many epochs over all its folds."""

    def trial_epoch(self, number: int, epoch: EpochRecord) -> None:
        """One of its epochs ended."""

    def trial_finished(self, backbone: str, record: TrialRecord) -> None:
        """A trial of this process was committed."""

    def search_progress(self, progress: SearchProgress) -> None:
        """Something happened, here or in another worker."""


@dataclass(frozen=True)
class Failure:
    """A cell that has no result, and why."""

    key: CellKey
    fault: TaskError

    def __str__(self) -> str:
        name = f"cell {self.key.candidate} seed {self.key.seed}"
        return f"{name} failed: {self.fault.kind}: {self.fault.reason}"


class Feedback(Protocol):
    """Hears how a run goes on."""

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """A cell begins: ``number`` of ``total``, counted from 1."""

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """An epoch over ``comments`` train rows ended; the run takes ``seconds_left`` more."""

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """A cell was stored; ``seconds_left`` is None if no epoch was measured."""

    def cell_failed(self, failure: Failure) -> None:
        """A cell has no result; the run goes on."""

    def warn(self, message: str) -> None:
        """Something that a user should know."""
