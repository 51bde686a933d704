"""What is told while a search goes on."""

from dataclasses import dataclass
from typing import Protocol

from toxbench.records import EpochRecord, TrialRecord


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
