"""Definitions that all executors share: tasks, results, callbacks, and the cores of a machine."""

import math
import os
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ctypes.util import find_library
from dataclasses import dataclass, field, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toxbench.util.processes import StopSource
from toxbench.util.text import hide_texts

if TYPE_CHECKING:
    from toxbench.plugin.registry import Registry
    from toxbench.training.process_group import ProcessGroup

# Tasks in the order in which they start; None: no task can start right now.
Tasks = Iterator["Task | None"]
POLL_SECONDS = 0.5  # between two attempts to get a task after None
THREADS, GPUS = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Pickled:
    """An object as bytes, so that a process that passes it on does not import its class.

    It is a message between processes of one run, pickled as the connections of multiprocessing
    pickle all others. No file is ever unpickled.

    Attributes:
        content: the pickled object, a dataclass instance if there are changes.
        changes: new values of its fields.
    """

    content: bytes
    changes: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, value: object) -> "Pickled":
        """Pickle an object."""
        return cls(bytes(ForkingPickler.dumps(value)))

    def load(self) -> Any:
        """Return the changed object."""
        value = ForkingPickler.loads(self.content)
        return replace(value, **self.changes) if self.changes else value


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


def count_cores(environ: Mapping[str, str]) -> int:
    """Return how many threads can compute at once: ``OMP_NUM_THREADS``, else this process's cores.

    Not torch's number of threads, which a plugin may have changed.
    """
    value = environ.get(THREADS, "")
    if value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_bytes() -> float:
    """Return the memory of this machine, or the limit of the container of this process.

    Infinity on Windows, whose standard library does not report it.
    """
    if sys.platform == "win32":
        return math.inf
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text(encoding="ascii").strip() if _CGROUP.is_file() else "max"
    return float(total if limit == "max" else min(total, int(limit)))


def gpu_names(environ: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Return the names in ``CUDA_VISIBLE_DEVICES`` of this process's ``count`` CUDA devices."""
    names = [name.strip() for name in environ.get(GPUS, "").split(",") if name.strip()]
    return tuple(names[:count] or map(str, range(count)))


def worker_environ(environ: Mapping[str, str], threads: int | None) -> dict[str, str]:
    """Return the environment of a worker process; without ``threads``, torch decides.

    If tcmalloc is installed, the worker uses it: it reuses memory that torch frees in each step,
    and saves 7 to 10 % of an epoch (results/README.md).
    """
    worker = dict(environ) if threads is None else {**environ, THREADS: str(threads)}
    allocator = find_library("tcmalloc_minimal") if sys.platform == "linux" else None
    if allocator is not None:
        worker.setdefault("LD_PRELOAD", allocator)
    return worker


def worker_environs(
    environ: Mapping[str, str], count: int, threads: int | None, gpus: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Return the environments of ``count`` workers that run at once.

    If there are GPUs, each worker sees one; more workers than GPUs share them in turn.
    """
    worker = worker_environ(environ, threads)
    if not gpus:
        return [worker] * count
    return [worker | {GPUS: gpus[number % len(gpus)]} for number in range(count)]
