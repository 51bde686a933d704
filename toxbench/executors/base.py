"""What an executor is: something that computes tasks somewhere, and says here how they went."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toxbench.util.signals import StopSource

if TYPE_CHECKING:
    from toxbench.plugin.registry import Registry

# Tasks in the order in which they are begun; None: there is nothing to begin just now.
Tasks = Iterator["Task | None"]
POLL_SECONDS = 0.5  # after which tasks are asked again whether there is something to begin


@dataclass(frozen=True)
class TaskError:
    """Why a task has no result.

    Attributes:
        kind: name of the error's class.
        reason: one line.
        trace: the traceback, "" where there is none.
    """

    kind: str
    reason: str
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "TaskError":
        """Describe an error so that it can be sent to another process."""
        reason = " ".join(str(error).split()) or "no message"
        return cls(type(error).__name__, reason, "".join(traceback.format_exception(error)))


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A task as plain values. A plugin's own objects need not be pickled: they are found by name.

    Attributes:
        plugin: of another distribution that it needs; None: toxbench's own alone.
        reads: a folder whose files it needs; None: none.
        uses_gpu: it computes on a CUDA device.
        keeps_state: asked to leave, it keeps how far it is, and goes on from there later.
    """

    plugin: str | None = None
    reads: Path | None = None
    uses_gpu: bool = False
    keeps_state: bool = False

    def task(self, registry: "Registry") -> Any:
        """Make the task again, in a process that has its own plugins.

        Raises:
            PluginError: they are not those of the process that sent it.
        """
        raise NotImplementedError


class Task(Protocol):
    """One thing to compute."""

    @property
    def spec(self) -> TaskSpec:
        """Describe it to another process."""


class TaskRunner(Protocol):
    """Computes one task at a time; what tasks share is prepared once."""

    def compute(self, task: Any, tell: Callable[[object], None]) -> object:
        """Return the result, or a `TaskError`; ``tell`` hears of whatever happens on the way.

        Raises:
            StorageError: the disk fails every task alike.
            Stopped: it was asked to leave, and did.
        """


@dataclass(frozen=True, kw_only=True)
class RunnerConfig:
    """What a process that computes tasks needs once: plain values.

    Attributes:
        writes: folder into which tasks put files, each under names of its own; None: they do not.
    """

    writes: Path | None = None

    def runner(self, stop: StopSource) -> TaskRunner:
        """Make what computes, in the process that computes.

        Args:
            interruption: what asks it to leave.
        """
        raise NotImplementedError


class TaskCallbacks(Protocol):
    """Hears of tasks while they are computed, in whatever process."""

    def started(self, task: Any) -> None:
        """A task begins."""

    def on_progress(self, task: Any, report: Any) -> bool:
        """Hear what a task tells; where False is returned, it is ended and not heard of again."""

    def done(self, task: Any, result: Any) -> None:
        """A task has its result."""

    def failed(self, task: Any, fault: TaskError) -> None:
        """A task has none."""


class Executor(Protocol):
    """Computes tasks somewhere. What they give is the same wherever that is."""

    def compute(self, setup: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute tasks to the last; all is heard, and stored, in this process.

        A task that raises, hangs or takes its process with it loses itself only.

        Args:
            setup: what every process gets that computes.
            tasks: in the order in which they are begun.
            listener: hears of every task, in the order of what happens.

        Raises:
            StorageError: results, or what tasks share on the disk, cannot be written.
        """
