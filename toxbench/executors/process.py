"""One worker process, as seen from the process that started it."""

import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from toxbench.errors import StorageError
from toxbench.executors.child import end_child, start_child
from toxbench.executors.interface import Fault, Job, Setup
from toxbench.report.words import duration


@dataclass(frozen=True)
class Ready:
    """The worker has imported what it needs."""


@dataclass(frozen=True)
class Broken:
    """No task can be computed any more: the disk fails."""

    message: str


@dataclass(frozen=True)
class Told:
    """What a task says while it is computed."""

    report: object


@dataclass(frozen=True)
class Result:
    """What a task ended with."""

    value: object


@dataclass(frozen=True)
class Leave:
    """The worker is to keep how far its job is, and to end."""


Heard = Told | Result | Fault
WORKER_DIED, CELL_TIMEOUT = PROCESS_ENDED = ("WorkerDied", "CellTimeout")  # kinds of faults


class WorkerProcess:
    """Computes one job after the other; loads at most one plugin of others."""

    def __init__(
        self,
        setup: Setup,
        job: Job,
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

    def can_take(self, job: Job) -> bool:
        """Whether it lives, and loaded what the job needs and nothing else."""
        return not self.is_dead and job.plugin == self._job.plugin

    def take(self, job: Job) -> None:
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
        if isinstance(message, Broken):
            raise StorageError(message.message)
        if isinstance(message, Ready):
            self._send(self._setup)
            self.take(self._job)
            return None
        if not isinstance(message, Told):
            self.deadline = float("inf")
        return message

    @property
    def keeps_state(self) -> bool:
        """Whether it is at a job whose state can be kept."""
        return self._has_begun and not self.is_dead and self._job.keeps_state

    def ask_to_leave(self) -> None:
        """Ask it to keep how far its job is, and to end."""
        self._send(Leave())

    def wait(self, deadline: float) -> None:
        """Wait until it has ended, or until a time; what it says is not heard."""
        with suppress(EOFError, ConnectionResetError):
            while self.connection.poll(max(0.0, deadline - time.monotonic())):
                self.connection.recv()

    def end(self) -> None:
        """End the process; a second time does nothing."""
        self.is_dead = True
        end_child(self._process, self.connection)

    def _message(self) -> Ready | Broken | Heard:
        try:
            if self.connection.poll():
                message: Ready | Broken | Heard = self.connection.recv()
                return message
        except (EOFError, ConnectionResetError):
            self.is_dead = True
            return Fault(WORKER_DIED, self._death())
        self.is_dead = True  # it is late: nothing was heard, and nothing will be
        allowed = duration(self._seconds or 0)
        return Fault(CELL_TIMEOUT, f"not done within {allowed} (--cell-timeout)")

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
