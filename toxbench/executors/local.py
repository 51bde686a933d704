"""Tasks side by side in worker processes of this machine, each with its share of it."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, cast

from toxbench.executors.base import (
    POLL_SECONDS,
    RunnerConfig,
    Task,
    TaskCallbacks,
    TaskError,
    Tasks,
)
from toxbench.executors.worker import Progress, WorkerProcess
from toxbench.util.signals import SignalStop

_END = object()
_SECONDS_TO_LEAVE = 9.0  # who sends SIGTERM often sends SIGKILL ten seconds later


@dataclass(frozen=True)
class LocalExecutor:
    """The executor of this machine.

    A worker that dies, or takes too long, loses the task that it was at, and another takes its
    place. No worker computes tasks of two plugins: what one of them does to its process cannot
    reach the numbers of another.

    Attributes:
        environs: the environment of each worker; there are as many workers at once.
        seconds: what one task may take; None: any time.
    """

    environs: Sequence[Mapping[str, str]]
    seconds: float | None = None

    def compute(self, setup: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute tasks in worker processes; see `Executor`."""
        with ExitStack() as running:
            pool = _Pool(self, setup, running)
            with pool.leaving():
                _serve(pool, tasks, callbacks)


def _serve(pool: "_Pool", tasks: Tasks, callbacks: TaskCallbacks) -> None:
    while True:
        wanted = pool.fill(tasks, callbacks)
        if pool.busy:
            for place in pool.ready(POLL_SECONDS if wanted is None else None):
                pool.hear(place, callbacks)
        elif wanted is None:
            time.sleep(POLL_SECONDS)
        else:
            return


class _Pool:
    """The workers, by their places."""

    def __init__(self, terms: LocalExecutor, setup: RunnerConfig, running: ExitStack) -> None:
        self.busy: dict[int, Task] = {}
        self._terms = terms
        self._setup = setup
        self._running = running
        self._workers: dict[int, WorkerProcess] = {}

    def fill(self, tasks: Tasks, callbacks: TaskCallbacks) -> object:
        """Begin tasks while there are some and places; return None where one may come later."""
        while len(self.busy) < len(self._terms.environs):
            task = next(tasks, _END)
            if task is _END:
                for place in self._idle():
                    self._end(place)  # its memory is for the others
            if task is None or task is _END:
                return task
            self._begin(cast(Task, task))
            callbacks.started(task)
        return _END

    def ready(self, patience: float | None) -> Iterator[int]:
        """Wait; yield the places of the busy workers that said something or ran out of time."""
        at_work = {place: self._workers[place] for place in self.busy}
        first = min(worker.deadline for worker in at_work.values())
        left = min(first - time.monotonic(), math.inf if patience is None else patience)
        connections = [worker.connection for worker in at_work.values()]
        said = wait(connections, None if left == math.inf else max(0.0, left))
        for place, worker in at_work.items():
            if worker.connection in said or worker.is_late:
                yield place

    def hear(self, place: int, callbacks: TaskCallbacks) -> None:
        """Take one message of a worker."""
        worker, task = self._workers[place], self.busy[place]
        on_progress = worker.hear()
        if on_progress is None:
            return
        if isinstance(on_progress, Progress):
            if not callbacks.on_progress(task, on_progress.report):
                self._end(place)
            return
        del self.busy[place]
        if worker.is_dead:
            self._end(place)
        if isinstance(on_progress, TaskError):
            callbacks.failed(task, on_progress)
        else:
            callbacks.done(task, on_progress.value)

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Where this process is told to end, let the workers keep what they have."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        leaving = [w for p, w in self._workers.items() if p in self.busy and w.keeps_state]
        for worker in leaving:
            worker.ask_to_leave()
        deadline = time.monotonic() + _SECONDS_TO_LEAVE
        for worker in leaving:
            worker.wait(deadline)

    def _begin(self, task: Task) -> None:
        """Give a task to an idle worker that may take it, else to a new one in a free place."""
        spec, places = task.spec, range(len(self._terms.environs))
        place = next((p for p in self._idle() if self._workers[p].can_take(spec)), None)
        if place is not None:
            self._workers[place].take(spec)
        else:
            free = [p for p in places if p not in self._workers]
            place = (free or self._idle())[0]
            self._end(place)
            environ = self._terms.environs[place]
            worker = WorkerProcess(self._setup, spec, environ, self._terms.seconds)
            self._running.callback(worker.end)
            self._workers[place] = worker
        self.busy[place] = task

    def _idle(self) -> list[int]:
        return [place for place in self._workers if place not in self.busy]

    def _end(self, place: int) -> None:
        """End the worker in a place, if there is one."""
        self.busy.pop(place, None)
        worker = self._workers.pop(place, None)
        if worker is not None:
            worker.end()


class InProcessExecutor:
    """The executor for little work: it starts no process."""

    def compute(self, setup: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute tasks one after the other; see `Executor`."""
        runner = setup.runner(SignalStop())
        for task in tasks:
            if task is None:
                time.sleep(POLL_SECONDS)
                continue
            callbacks.started(task)
            ear = _ProgressGuard(task, callbacks)
            try:
                found = runner.compute(task, ear.tell)
            except _StoppedError:
                if ear.error is not None:
                    raise ear.error from None
                continue
            if isinstance(found, TaskError):
                callbacks.failed(task, found)
            else:
                callbacks.done(task, found)


class _StoppedError(BaseException):
    """The task goes on no further. No task takes this for an error of its own."""


class _ProgressGuard:
    """Passes on what a task tells, and ends it where it should or must."""

    def __init__(self, task: Any, callbacks: TaskCallbacks) -> None:
        self.error: Exception | None = None  # the listener's, not the task's
        self._task = task
        self._callbacks = callbacks

    def tell(self, report: object) -> None:
        try:
            goes_on = self._callbacks.on_progress(self._task, report)
        except Exception as error:
            self.error = error
            raise _StoppedError from error
        if not goes_on:
            raise _StoppedError
