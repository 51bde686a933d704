"""What is trained, by whomever: the same rows, tokens, weights and settings for all."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from toxbench.benchmark.candidate import BackboneCandidate
from toxbench.benchmark.expected import body_parameters
from toxbench.benchmark.workbench import Workbench
from toxbench.data.split import Rows, Split
from toxbench.data.table import Comments
from toxbench.data.tokens import Tokens
from toxbench.errors import PluginError
from toxbench.settings import TrainSettings
from toxbench.training.device import Device, PeakMemory
from toxbench.training.peak import wait

WARM_UP_BATCHES = 4


@dataclass(frozen=True, eq=False)
class Task:
    """One backbone on one table.

    Attributes:
        candidate: what is trained, and how.
        comments: the table.
        split: its train rows are an epoch.
        device: where toxbench trains, and in which precision.
    """

    candidate: BackboneCandidate
    comments: Comments
    split: Split
    device: Device

    @cached_property
    def bench(self) -> Workbench:
        """What toxbench's trainings share."""
        weights = self.candidate.weights
        return Workbench(self.candidate.backbone, weights, self.comments, self.device)

    @property
    def settings(self) -> TrainSettings:
        """How it is trained."""
        return self.candidate.settings

    @property
    def rows(self) -> Rows:
        """The train rows."""
        return self.split.train

    @property
    def tokens(self) -> Tokens:
        """Of all rows of the table."""
        return self.bench.tokens(self.settings.max_length)

    @property
    def tokens_an_epoch(self) -> int:
        """Tokens of the train rows, padding not counted."""
        return int(self.tokens.lengths[self.rows].sum())

    @property
    def folder(self) -> Path:
        """The checkpoint."""
        folder = self.candidate.weights.folder
        if folder is None:
            raise PluginError(f"the weights of {self.candidate.name} were never fetched")
        return folder

    @cached_property
    def body_parameters(self) -> int:
        """Parameters without embedding tables."""
        return body_parameters(self.folder)


@dataclass(frozen=True)
class Timed:
    """One timed run.

    Attributes:
        seconds: of training alone; the module was built before.
        peak_memory_bytes: highest while training.
        evaluation_seconds: of the probabilities of all rows; None: not asked for.
    """

    seconds: float
    peak_memory_bytes: int
    evaluation_seconds: float | None = None


class Variant(Protocol):
    """A way to train a task. Each run starts from a fresh module."""

    @property
    def name(self) -> str:
        """``toxbench``, or the peer's name."""

    @property
    def device(self) -> Device:
        """Where it trains, and in which precision."""

    @property
    def comments(self) -> int:
        """Comments trained on in one timed run, each epoch counted."""

    def warm_up(self) -> None:
        """Train for a few steps, so that nothing of the first run is measured."""

    def run(self) -> Timed:
        """Train, and say what it took."""


class WholeEpochs:
    """What variants share that train on all train rows, epoch by epoch, on the task's device."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def device(self) -> Device:
        """The task's: bf16 where toxbench trains in bf16."""
        return self._task.device

    @property
    def comments(self) -> int:
        """All train rows, each epoch counted."""
        return len(self._task.rows) * self._task.settings.epochs


def timed(device: Device, train: Callable[[], object]) -> Timed:
    """Time a training and watch its memory."""
    memory = PeakMemory(device)
    memory.start()
    wait(device)
    started = time.perf_counter()
    train()
    wait(device)
    return Timed(time.perf_counter() - started, memory.read())
