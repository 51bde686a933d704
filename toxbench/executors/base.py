"""Definitions that all executors share: tasks, their results and errors, and the callbacks."""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toxbench.util.signals import StopSource
from toxbench.util.text import hide_texts

if TYPE_CHECKING:
    from toxbench.plugin.registry import Registry
    from toxbench.training.process_group import ProcessGroup

# Tasks in the order in which they start; None: no task can start right now.
Tasks = Iterator["Task | None"]
POLL_SECONDS = 0.5  # between two attempts to get a task after None


@dataclass(frozen=True)
class TaskError:
    """Why a task has no result.

    Attributes:
        kind: name of the error's class.
        reason: one line.
        trace: the traceback, or "" if there is none.
    """

    kind: str
    reason: str
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException, texts: Iterable[str] = ()) -> "TaskError":
        """Describe an error so that it can be sent to another process.

        ``texts`` are those of the table, which foreign code may have put into its message.
        """
        trace = hide_texts("".join(traceback.format_exception(error)), texts)
        reason = " ".join(hide_texts(str(error), texts).split()) or "no message"
        return cls(type(error).__name__, reason, trace)


@dataclass(frozen=True, kw_only=True)
class TaskSpec(ABC):
    """A task as plain values, so that a plugin's objects need not be pickled.

    Attributes:
        plugin: of another distribution that the task needs; None if toxbench's own are enough.
        reads: a folder whose files the task needs; None if it needs none.
        uses_gpu: the task computes on a CUDA device.
        has_checkpoints: when it is stopped, the task writes a checkpoint and resumes from it later.
        is_shared: all processes that torchrun started compute the task together.
        batch_size: comments of one optimizer step over all processes; None for other tasks.
    """

    plugin: str | None = None
    reads: Path | None = None
    uses_gpu: bool = False
    has_checkpoints: bool = False
    is_shared: bool = False
    batch_size: int | None = None

    @abstractmethod
    def task(self, registry: "Registry") -> Any:
        """Build the task again in a process with its own plugins.

        Raises:
            PluginError: the plugins are not those of the process that sent the spec.
        """


class Task(Protocol):
    """One thing to compute."""

    @property
    def spec(self) -> TaskSpec:
        """The task as plain values."""


class TaskRunner(Protocol):
    """Computes one task at a time and prepares shared data once."""

    def compute(self, task: Any, report: Callable[[object], Any]) -> object:
        """Return the result or a `TaskError`; call ``report`` with progress on the way.

        Raises:
            StorageError: the disk fails for every task.
            StopRequested: the task was stopped and wrote its checkpoint.
        """


@dataclass(frozen=True, kw_only=True)
class RunnerConfig(ABC):
    """Plain values that a process needs once, before it computes tasks.

    Attributes:
        writes: folder into which tasks write files of different names; None if they write none.
    """

    writes: Path | None = None

    @abstractmethod
    def runner(self, stop: StopSource, group: "ProcessGroup | None" = None) -> TaskRunner:
        """Build the runner, in the process that computes.

        The processes of ``group`` compute each task together; None is for this process alone.
        """


class TaskCallbacks(Protocol):
    """Called in the main process while tasks are computed in any process."""

    def started(self, task: Any) -> None:
        """A task starts."""

    def on_progress(self, task: Any, report: Any) -> bool:
        """Handle progress of a task; return False to end the task without a result."""

    def done(self, task: Any, result: Any) -> None:
        """A task has its result."""

    def failed(self, task: Any, error: TaskError) -> None:
        """A task failed."""


class Executor(Protocol):
    """Computes tasks; the results do not depend on where."""

    def compute(self, config: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute all tasks in the order in which they start; the callbacks run in this process.

        A task that raises, hangs or kills its process loses only its own result.

        Raises:
            StorageError: results, or files that tasks share, cannot be written.
        """
