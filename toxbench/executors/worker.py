"""The process of a worker: computes what it is sent, one job at a time, and reports."""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from toxbench.errors import StorageError, ToxbenchError
from toxbench.executors.base import RunnerConfig, TaskError, TaskSpec
from toxbench.executors.spawn import end_child, leave_with_parent, start_child
from toxbench.plugin.registry import Registry
from toxbench.util.signals import ShouldStop, StopRequested
from toxbench.util.text import format_duration


@dataclass(frozen=True)
class Ready:
    """The worker has imported what it needs."""


@dataclass(frozen=True)
class FatalError:
    """No task can be computed any more: the disk fails."""

    message: str


@dataclass(frozen=True)
class Progress:
    """What a task says while it is computed."""

    report: object


@dataclass(frozen=True)
class Result:
    """What a task ended with."""

    value: object


@dataclass(frozen=True)
class StopRequest:
    """The worker is to keep how far its job is, and to end."""


Heard = Progress | Result | TaskError
WORKER_DIED, CELL_TIMEOUT = PROCESS_ENDED = ("WorkerDied", "CellTimeout")  # kinds of faults


class WorkerProcess:
    """Computes one job after the other; loads at most one plugin of others."""

    def __init__(
        self,
        setup: RunnerConfig,
        job: TaskSpec,
        environ: Mapping[str, str],
        seconds: float | None,
        output: int = 2,
        path: Sequence[str] = (),
    ) -> None:
        """Start it, with its first job.

        Args:
            setup: what it needs once.
            job: to begin with.
            environ: of the process.
            seconds: what a job may take; None: any time.
            output: file descriptor for what plugins print.
            path: further folders that it imports from.
        """
        self._process, self.connection = start_child(
            "toxbench.executors.worker", environ, output, path
        )
        self._setup = setup
        self._seconds = seconds
        self._job = job
        self.deadline = float("inf")  # of its job; importing torch and toxbench does not count
        self.is_dead = False
        self._has_begun = False

    @property
    def is_late(self) -> bool:
        """Whether its job takes longer than it may."""
        return time.monotonic() >= self.deadline

    def can_take(self, job: TaskSpec) -> bool:
        """Whether it lives, and loaded what the job needs and nothing else."""
        return not self.is_dead and job.plugin == self._job.plugin

    def take(self, job: TaskSpec) -> None:
        """Give it another job to compute."""
        self._job = job
        if self._seconds is not None:
            self.deadline = time.monotonic() + self._seconds
        self._send(job)
        self._has_begun = True

    def hear(self) -> Heard | None:
        """Take one message; None where it is of no interest.

        Raises:
            StorageError: the worker cannot go on, and no other could.
        """
        message = self._message()
        if isinstance(message, FatalError):
            raise StorageError(message.message)
        if isinstance(message, Ready):
            self._send(self._setup)
            self.take(self._job)
            return None
        if not isinstance(message, Progress):
            self.deadline = float("inf")
        return message

    @property
    def keeps_state(self) -> bool:
        """Whether it is at a job whose state can be kept."""
        return self._has_begun and not self.is_dead and self._job.keeps_state

    def ask_to_leave(self) -> None:
        """Ask it to keep how far its job is, and to end."""
        self._send(StopRequest())

    def wait(self, deadline: float) -> None:
        """Wait until it has ended, or until a time; what it says is not heard."""
        with suppress(EOFError, ConnectionResetError):
            while self.connection.poll(max(0.0, deadline - time.monotonic())):
                self.connection.recv()

    def end(self) -> None:
        """End the process; a second time does nothing."""
        self.is_dead = True
        end_child(self._process, self.connection)

    def _message(self) -> Ready | FatalError | Heard:
        try:
            if self.connection.poll():
                message: Ready | FatalError | Heard = self.connection.recv()
                return message
        except (EOFError, ConnectionResetError):
            self.is_dead = True
            return TaskError(WORKER_DIED, self._death())
        self.is_dead = True  # it is late: nothing was heard, and nothing will be
        allowed = format_duration(self._seconds or 0)
        return TaskError(CELL_TIMEOUT, f"not done within {allowed} (--cell-timeout)")

    def _send(self, value: object) -> None:
        # A worker that has died is heard of when its report is read: the connection is at its end.
        with suppress(BrokenPipeError):
            self.connection.send(value)

    def _death(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return (
                "its process was ended by SIGKILL; so does a system without memory left: "
                "use fewer --workers or a smaller --batch-size"
            )
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until it closes."""
    leave_with_parent()
    with Connection(descriptor) as connection:
        connection.send(Ready())
        setup: RunnerConfig = connection.recv()
        worker = _Worker(connection, setup)
        with suppress(EOFError, StopRequested):
            while isinstance(job := connection.recv(), TaskSpec):
                connection.send(worker.serve(job))


class _ByConnection:
    """Whatever is said while a job is computed: it can only be to leave."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def listen(self) -> Iterator[ShouldStop]:
        """Yield what tells whether something was said."""
        yield self._connection.poll


class _Worker:
    def __init__(self, connection: Connection, setup: RunnerConfig) -> None:
        self._connection = connection
        self._station = setup.station(_ByConnection(connection))
        self._registry: Registry | None = None

    def serve(self, job: TaskSpec) -> Result | TaskError | FatalError:
        """Compute a job; return how it went."""
        try:
            task = job.task(self._own(job))
            found = self._station.compute(
                task, lambda report: self._connection.send(Progress(report))
            )
        except StorageError as error:
            return FatalError(str(error))
        except ToxbenchError as error:
            return TaskError.of(error)
        return found if isinstance(found, TaskError) else Result(found)

    def _own(self, job: TaskSpec) -> Registry:
        """What toxbench brings, and the one plugin whose tasks are computed here."""
        if self._registry is None:
            self._registry = Registry.discover([] if job.plugin is None else [job.plugin])
        return self._registry
