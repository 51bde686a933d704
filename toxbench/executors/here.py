"""Tasks computed in this process, one after the other."""

import time
from typing import Any

from toxbench.executors.interface import POLL_SECONDS, Fault, Listener, Setup, Tasks
from toxbench.interruption import BySignal


class Here:
    """The executor for little work: it starts no process."""

    def compute(self, setup: Setup, tasks: Tasks, listener: Listener) -> None:
        """Compute tasks one after the other; see `Executor`."""
        station = setup.station(BySignal())
        for task in tasks:
            if task is None:
                time.sleep(POLL_SECONDS)
                continue
            listener.started(task)
            ear = _Ear(task, listener)
            try:
                found = station.compute(task, ear.tell)
            except _StoppedError:
                if ear.error is not None:
                    raise ear.error from None
                continue
            if isinstance(found, Fault):
                listener.failed(task, found)
            else:
                listener.done(task, found)


class _StoppedError(BaseException):
    """The task goes on no further. No task takes this for an error of its own."""


class _Ear:
    """Passes on what a task tells, and ends it where it should or must."""

    def __init__(self, task: Any, listener: Listener) -> None:
        self.error: Exception | None = None  # the listener's, not the task's
        self._task = task
        self._listener = listener

    def tell(self, report: object) -> None:
        try:
            goes_on = self._listener.heard(self._task, report)
        except Exception as error:
            self.error = error
            raise _StoppedError from error
        if not goes_on:
            raise _StoppedError
