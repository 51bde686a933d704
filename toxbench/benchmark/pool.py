"""Cells side by side in worker processes, each with its share of the threads."""

import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

from toxbench.benchmark.candidate import BackboneCandidate
from toxbench.benchmark.child import end_child, start_child
from toxbench.benchmark.execution import Failure, Listener, Task
from toxbench.benchmark.jobs import Broken, Leave, Ready, Report, Setup, job_of
from toxbench.errors import StorageError
from toxbench.records import EpochRecord
from toxbench.report.words import duration

WORKER_DIED, CELL_TIMEOUT = PROCESS_ENDED = ("WorkerDied", "CellTimeout")  # kinds of failures
_SECONDS_TO_LEAVE = 9.0  # who sends SIGTERM often sends SIGKILL ten seconds later


@dataclass(frozen=True)
class Terms:
    """How workers are kept.

    Attributes:
        count: at most so many at once.
        environ: of each of them.
        cell_seconds: what one cell may take; None: any time.
    """

    count: int
    environ: Mapping[str, str]
    cell_seconds: float | None = None


def compute_side_by_side(
    setup: Setup, tasks: Iterable[Task], terms: Terms, listener: Listener
) -> None:
    """Compute cells in worker processes; everything is heard, and stored, in this one.

    A worker that dies, or takes too long, loses the cell that it was at, and another takes its
    place. No worker computes cells of two plugins: what one of them does to its process cannot
    reach the numbers of another.

    Args:
        setup: what every worker gets.
        tasks: cells, in the order in which they are begun.
        terms: how many workers there are, and of which kind.
        listener: hears of every cell, in the order of what happens.

    Raises:
        StorageError: results, or what workers share on the disk, cannot be written.
    """
    waiting = deque(tasks)
    workers: dict[Connection, _Worker] = {}
    with ExitStack() as running, _leaving(workers):
        while waiting or workers:
            while waiting and len(workers) < terms.count:
                worker = _Worker(setup, terms, waiting.popleft())
                running.callback(worker.end)
                workers[worker.connection] = worker
                listener.started(*worker.task)
            for worker in _heard_of(workers):
                if not worker.hear(listener):
                    continue
                if waiting and worker.can_take(waiting[0]):
                    worker.take(waiting.popleft())
                    listener.started(*worker.task)
                else:
                    worker.end()
                    del workers[worker.connection]


@contextmanager
def _leaving(workers: Mapping[Connection, "_Worker"]) -> Iterator[None]:
    """Where this process is to end, let the workers keep what they have, for a few seconds."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        training = [worker for worker in workers.values() if worker.is_training]
        for worker in training:
            worker.ask_to_leave()
        deadline = time.monotonic() + _SECONDS_TO_LEAVE
        for worker in training:
            worker.wait(deadline)
        raise


def _heard_of(workers: Mapping[Connection, "_Worker"]) -> Iterator["_Worker"]:
    """Wait; yield the workers that have something to say or ran out of time."""
    now = time.monotonic()
    first = min(worker.deadline for worker in workers.values())
    ready = wait(list(workers), None if first == float("inf") else max(0.0, first - now))
    for worker in list(workers.values()):
        if worker.connection in ready or worker.is_late:
            yield worker


class _Worker:
    """A worker process, as seen from here."""

    def __init__(self, setup: Setup, terms: Terms, task: Task) -> None:
        self._process, self.connection = start_child("toxbench.benchmark.worker", terms.environ)
        self._setup = replace(setup, plugin=task[0].plugin)
        self._seconds = terms.cell_seconds
        self.task = task
        self.deadline = float("inf")  # of its cell; importing torch and toxbench does not count
        self._is_dead = False
        self._has_begun = False

    @property
    def is_late(self) -> bool:
        """Whether its cell takes longer than it may."""
        return time.monotonic() >= self.deadline

    def can_take(self, task: Task) -> bool:
        """Whether it lives, and loaded what the cell needs and nothing else."""
        return not self._is_dead and task[0].plugin == self._setup.plugin

    def take(self, task: Task) -> None:
        """Give it another cell to compute."""
        self.task = task
        if self._seconds is not None:
            self.deadline = time.monotonic() + self._seconds
        self._send(job_of(*task))
        self._has_begun = True

    def hear(self, listener: Listener) -> bool:
        """Take one report; return whether its cell is over.

        Raises:
            StorageError: the worker cannot go on, and no other could.
        """
        key = self.task[1]
        report = self._report()
        if isinstance(report, Broken):
            raise StorageError(report.message)
        if isinstance(report, Ready):
            self._send(self._setup)
            self.take(self.task)
        elif isinstance(report, EpochRecord):
            listener.epoch(key, report)
        elif isinstance(report, Failure):
            listener.failed(report)
        else:
            listener.done(*report)
        return not isinstance(report, Ready | EpochRecord)

    @property
    def is_training(self) -> bool:
        """Whether it is at a cell whose state can be kept."""
        return self._has_begun and isinstance(self.task[0], BackboneCandidate)

    def ask_to_leave(self) -> None:
        """Ask it to keep the state of what it trains, and to end."""
        self._send(Leave())

    def wait(self, deadline: float) -> None:
        """Wait until it has ended, or until a time; what it says is not heard."""
        with suppress(EOFError, ConnectionResetError):
            while self.connection.poll(max(0.0, deadline - time.monotonic())):
                self.connection.recv()

    def end(self) -> None:
        """End the process; a second time does nothing."""
        end_child(self._process, self.connection)

    def _report(self) -> Report:
        key = self.task[1]
        try:
            if self.connection.poll():
                report: Report = self.connection.recv()
                return report
        except (EOFError, ConnectionResetError):
            self._is_dead = True
            return Failure(key, WORKER_DIED, self._death())
        self._is_dead = True  # it is late: nothing was heard, and nothing will be
        allowed = duration(self._seconds or 0)
        return Failure(key, CELL_TIMEOUT, f"not done within {allowed} (--cell-timeout)")

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
