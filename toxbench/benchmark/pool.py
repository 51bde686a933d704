"""Cells side by side in worker processes, each with its share of the threads."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, wait
from typing import cast

from toxbench.benchmark.execution import Failure, Listener, Task
from toxbench.benchmark.jobs import Broken, Ready, Report, Setup, job_of
from toxbench.errors import StorageError
from toxbench.records import EpochRecord

# The worker imports what this process would, wherever it was started from.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from toxbench.benchmark.worker import main; main(int(sys.argv[2]))"
)


def compute_side_by_side(
    setup: Setup, tasks: Iterable[Task], count: int, listener: Listener
) -> None:
    """Compute cells in worker processes; everything is heard, and stored, in this one.

    A worker that dies loses the cell that it was at, and another takes its place.

    Args:
        setup: what every worker gets.
        tasks: cells, in the order in which they are begun.
        count: workers, at most.
        listener: hears of every cell, in the order of what happens.

    Raises:
        StorageError: results, or what workers share on the disk, cannot be written.
    """
    waiting = deque(tasks)
    workers: dict[Connection, _Worker] = {}
    with ExitStack() as running:
        while waiting or workers:
            while waiting and len(workers) < count:
                worker = _Worker(setup, waiting.popleft())
                running.callback(worker.end)
                workers[worker.connection] = worker
                listener.started(*worker.task)
            for connection in wait(list(workers)):
                worker = workers[cast(Connection, connection)]
                if not worker.hear(listener):
                    continue
                if waiting and not worker.is_dead:
                    worker.take(waiting.popleft())
                    listener.started(*worker.task)
                else:
                    worker.end()
                    del workers[worker.connection]


class _Worker:
    """A worker process, as seen from here."""

    def __init__(self, setup: Setup, task: Task) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path), str(theirs.fileno())],
                stdin=subprocess.PIPE,  # its end tells the worker that this process is gone
                stdout=2,  # what a plugin prints is no result of ours
                pass_fds=[theirs.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": str(setup.threads)},
            )
        self.connection = Connection(ours.detach())
        self._setup = setup
        self.task = task
        self.is_dead = False

    def take(self, task: Task) -> None:
        """Give it another cell to compute."""
        self.task = task
        self._send(job_of(*task))

    def hear(self, listener: Listener) -> bool:
        """Take one report; return whether its cell is over.

        Raises:
            StorageError: the worker cannot go on, and no other could.
        """
        key = self.task[1]
        try:
            report: Report = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.is_dead = True
            report = Failure(key, "WorkerDied", self._death())
        if isinstance(report, Broken):
            raise StorageError(report.message)
        if isinstance(report, Ready):
            self._send(self._setup)
            self._send(job_of(*self.task))
        elif isinstance(report, EpochRecord):
            listener.epoch(key, report)
        elif isinstance(report, Failure):
            listener.failed(report)
        else:
            listener.done(*report)
        return not isinstance(report, Ready | EpochRecord)

    def end(self) -> None:
        """End the process; a second time does nothing."""
        self.connection.close()
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _send(self, value: object) -> None:
        # A worker that has died is heard of when its report is read: the connection is at its end.
        with suppress(BrokenPipeError):
            self.connection.send(value)

    def _death(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"
