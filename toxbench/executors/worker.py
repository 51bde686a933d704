"""A worker process: the code that runs in it, and its handle in the process that started it.

The worker computes the task specs that it receives, one at a time, and sends messages back.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from toxbench.errors import StorageError, ToxbenchError
from toxbench.executors.base import Pickled, RunnerConfig, TaskError, TaskSpec
from toxbench.plugin.registry import Registry
from toxbench.util.processes import (
    ShouldStop,
    StopRequested,
    describe_exit,
    end_child,
    exit_with_parent,
    start_child,
)
from toxbench.util.text import format_duration

WORKER_DIED, CELL_TIMEOUT = PROCESS_ENDED = ("WorkerDied", "CellTimeout")  # kinds of `TaskError`


@dataclass(frozen=True)
class Ready:
    """The worker has imported its modules."""


@dataclass(frozen=True)
class FatalError:
    """No further task can be computed, because the disk fails."""

    message: str


@dataclass(frozen=True)
class Progress:
    """A report of a task that has not ended."""

    report: object


@dataclass(frozen=True)
class Result:
    """The result of a task."""

    value: Pickled


@dataclass(frozen=True)
class StopRequest:
    """Asks the worker to write the checkpoint of its task and to exit."""


Message = Progress | Result | TaskError


class WorkerProcess:
    """The handle of a worker process, which loads at most one plugin of another distribution."""

    def __init__(
        self,
        config: RunnerConfig | Pickled,
        spec: TaskSpec | Pickled,
        environ: Mapping[str, str],
        seconds: float | None,
        output: int = 2,
        path: Sequence[str] = (),
    ) -> None:
        """Start the process with its first task.

        Args:
            config: sent to the process once.
            spec: the first task; the only one if it is pickled.
            environ: environment variables of the process.
            seconds: time limit of one task; None for no limit.
            output: file descriptor for the output of plugins.
            path: additional folders to import from.
        """
        self._process, self.connection = start_child(
            "toxbench.executors.worker", environ, output, path
        )
        self._config = config
        self._seconds = seconds
        self._spec = spec
        self.deadline = float("inf")  # of the task; the time of imports is not limited
        self.is_dead = False
        self._has_started = False

    @property
    def is_late(self) -> bool:
        """Whether the task exceeded its time limit."""
        return time.monotonic() >= self.deadline

    def can_take(self, spec: TaskSpec) -> bool:
        """Whether the process is alive and has loaded exactly the plugin of the task."""
        last = self._spec
        return not self.is_dead and isinstance(last, TaskSpec) and spec.plugin == last.plugin

    def take(self, spec: TaskSpec | Pickled) -> None:
        """Send another task."""
        self._spec = spec
        if self._seconds is not None:
            self.deadline = time.monotonic() + self._seconds
        self._send(spec)
        self._has_started = True

    def receive(self) -> Message | None:
        """Receive one message; None if it needs no handling.

        Raises:
            StorageError: the disk fails, for this worker and any other.
        """
        message = self._receive_any()
        if isinstance(message, FatalError):
            raise StorageError(message.message)
        if isinstance(message, Ready):
            self._send(self._config)
            self.take(self._spec)
            return None
        if not isinstance(message, Progress):
            self.deadline = float("inf")
        return message

    @property
    def can_write_checkpoint(self) -> bool:
        """Whether it computes a task that can be resumed later."""
        spec = self._spec
        has_checkpoints = isinstance(spec, TaskSpec) and spec.has_checkpoints
        return self._has_started and not self.is_dead and has_checkpoints

    def request_stop(self) -> None:
        """Ask it to write the checkpoint of its task and to exit."""
        self._send(StopRequest())

    def wait(self, deadline: float) -> None:
        """Wait for its exit until a time of `time.monotonic`; ignore its messages."""
        with suppress(EOFError, ConnectionResetError):
            while self.connection.poll(max(0.0, deadline - time.monotonic())):
                self.connection.recv()

    def end(self) -> None:
        """Kill the process; a second call does nothing."""
        self.is_dead = True
        end_child(self._process, self.connection)

    def _receive_any(self) -> Ready | FatalError | Message:
        try:
            if self.connection.poll():
                message: Ready | FatalError | Message = self.connection.recv()
                return message
        except (EOFError, ConnectionResetError):
            self.is_dead = True
            return TaskError(WORKER_DIED, self._exit_reason())
        self.is_dead = True  # the task is late, and no message is waiting
        limit = format_duration(self._seconds or 0)
        return TaskError(CELL_TIMEOUT, f"not done within {limit} (--cell-timeout)")

    def _send(self, value: object) -> None:
        # The death of the worker is noticed when its messages are read.
        with suppress(BrokenPipeError):
            self.connection.send(value)

    def _exit_reason(self) -> str:
        reason = describe_exit(self._process)
        if self._process.returncode == -9:  # SIGKILL, a name that Windows does not have
            return (
                f"{reason}, as a system without free memory does: use fewer --workers or a "
                "smaller --batch-size"
            )
        return reason


def main(descriptor: int) -> None:
    """Compute tasks in the worker process until the other end of the socket closes."""
    exit_with_parent()
    with Connection(descriptor) as connection:
        connection.send(Ready())
        worker = _Worker(connection, _load(connection.recv()))
        with suppress(EOFError, StopRequested):
            while isinstance(spec := _load(connection.recv()), TaskSpec):
                connection.send(worker.compute(spec))


def _load(message: Any) -> Any:
    return message.load() if isinstance(message, Pickled) else message


class _ConnectionStop:
    """Stops a task when a message arrives, which can only be a `StopRequest`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def watching(self) -> Iterator[ShouldStop]:
        """Yield a function that returns whether a message arrived."""
        yield self._connection.poll


class _Worker:
    def __init__(self, connection: Connection, config: RunnerConfig) -> None:
        self._connection = connection
        self._runner = config.runner(_ConnectionStop(connection))
        self._registry: Registry | None = None

    def compute(self, spec: TaskSpec) -> Result | TaskError | FatalError:
        """Compute a task and return the message for the main process."""
        try:
            task = spec.task(self._registry_for(spec))
            result = self._runner.compute(
                task, lambda report: self._connection.send(Progress(report))
            )
        except StorageError as error:
            return FatalError(str(error))
        except ToxbenchError as error:
            return TaskError.of(error)
        return result if isinstance(result, TaskError) else Result(Pickled.of(result))

    def _registry_for(self, spec: TaskSpec) -> Registry:
        """Load toxbench's plugins and the one of the task, once."""
        if self._registry is None:
            self._registry = Registry.load([] if spec.plugin is None else [spec.plugin])
        return self._registry
