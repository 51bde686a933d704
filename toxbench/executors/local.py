"""The executors of this machine: this process, or worker processes that share the machine."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
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
from toxbench.util.processes import SignalStop

_END = object()
_STOP_SECONDS = 9.0  # a sender of SIGTERM often sends SIGKILL ten seconds later


class InProcessExecutor:
    """Computes tasks in this process, one after the other, for little work."""

    def compute(self, config: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute tasks one after the other; see `Executor`."""
        runner = config.runner(SignalStop())
        for task in tasks:
            if task is None:
                time.sleep(POLL_SECONDS)
                continue
            callbacks.started(task)
            guard = _ProgressGuard(task, callbacks)
            try:
                result = runner.compute(task, guard.report)
            except _TaskEndedError:
                if guard.error is not None:
                    raise guard.error from None
                continue
            if isinstance(result, TaskError):
                callbacks.failed(task, result)
            else:
                callbacks.done(task, result)


class _TaskEndedError(BaseException):
    """The callbacks ended the task. A task cannot mistake this for an error of its code."""


class _ProgressGuard:
    """Passes progress to the callbacks, and ends the task if they return False or raise."""

    def __init__(self, task: Any, callbacks: TaskCallbacks) -> None:
        self.error: Exception | None = None  # raised by the callbacks, not by the task
        self._task = task
        self._callbacks = callbacks

    def report(self, progress: object) -> None:
        try:
            should_continue = self._callbacks.on_progress(self._task, progress)
        except Exception as error:
            self.error = error
            raise _TaskEndedError from error
        if not should_continue:
            raise _TaskEndedError


@dataclass(frozen=True)
class LocalExecutor:
    """Computes tasks in worker processes.

    A worker that dies or exceeds the time limit loses its current task, and a new worker replaces
    it. A worker loads at most one plugin, so that a plugin cannot change another one's results.

    Attributes:
        environs: the environment of each worker; as many workers run at once.
        seconds: time limit of one task; None for no limit.
    """

    environs: Sequence[Mapping[str, str]]
    seconds: float | None = None

    def compute(self, config: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute tasks in worker processes; see `Executor`."""
        with ExitStack() as running:
            pool = _WorkerPool(self, config, running)
            try:
                _run_pool(pool, tasks, callbacks)
            except Exception:
                raise
            except BaseException:  # a signal ends this process
                pool.stop_workers()
                raise


def _run_pool(pool: "_WorkerPool", tasks: Tasks, callbacks: TaskCallbacks) -> None:
    while True:
        next_task = pool.start_tasks(tasks, callbacks)
        if pool.busy:
            for slot in pool.ready_slots(POLL_SECONDS if next_task is None else None):
                pool.handle_message(slot, callbacks)
        elif next_task is None:
            time.sleep(POLL_SECONDS)
        else:
            return


class _WorkerPool:
    """The workers, each in a numbered slot."""

    def __init__(self, executor: LocalExecutor, config: RunnerConfig, running: ExitStack) -> None:
        self.busy: dict[int, Task] = {}
        self._executor = executor
        self._config = config
        self._running = running
        self._workers: dict[int, WorkerProcess] = {}

    def start_tasks(self, tasks: Tasks, callbacks: TaskCallbacks) -> object:
        """Start tasks in all free slots; return None if another task may come later."""
        while len(self.busy) < len(self._executor.environs):
            task = next(tasks, _END)
            if task is _END:
                for slot in self._idle_slots():
                    self._end(slot)  # frees memory for the busy workers
            if task is None or task is _END:
                return task
            self._start(cast(Task, task))
            callbacks.started(task)
        return _END

    def ready_slots(self, timeout: float | None) -> Iterator[int]:
        """Wait; yield the slots of workers that sent a message or exceeded the time limit."""
        busy_workers = {slot: self._workers[slot] for slot in self.busy}
        deadline = min(worker.deadline for worker in busy_workers.values())
        seconds = min(deadline - time.monotonic(), math.inf if timeout is None else timeout)
        connections = [worker.connection for worker in busy_workers.values()]
        readable = wait(connections, None if seconds == math.inf else max(0.0, seconds))
        for slot, worker in busy_workers.items():
            if worker.connection in readable or worker.is_late:
                yield slot

    def handle_message(self, slot: int, callbacks: TaskCallbacks) -> None:
        """Handle one message of a worker."""
        worker, task = self._workers[slot], self.busy[slot]
        message = worker.receive()
        if message is None:
            return
        if isinstance(message, Progress):
            if not callbacks.on_progress(task, message.report):
                self._end(slot)
            return
        del self.busy[slot]
        if worker.is_dead:
            self._end(slot)
        if isinstance(message, TaskError):
            callbacks.failed(task, message)
        else:
            callbacks.done(task, message.value.load())

    def stop_workers(self) -> None:
        """Let the busy workers write their checkpoints and exit."""
        workers = [self._workers[slot] for slot in self.busy if slot in self._workers]
        stoppable = [worker for worker in workers if worker.can_write_checkpoint]
        for worker in stoppable:
            worker.request_stop()
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in stoppable:
            worker.wait(deadline)

    def _start(self, task: Task) -> None:
        """Give a task to an idle worker with the right plugin, else to a new worker."""
        spec, slots = task.spec, range(len(self._executor.environs))
        idle = self._idle_slots()
        slot = next((slot for slot in idle if self._workers[slot].can_take(spec)), None)
        if slot is not None:
            self._workers[slot].take(spec)
        else:
            free = [slot for slot in slots if slot not in self._workers]
            slot = (free or idle)[0]
            self._end(slot)
            environ = self._executor.environs[slot]
            worker = WorkerProcess(self._config, spec, environ, self._executor.seconds)
            self._running.callback(worker.end)
            self._workers[slot] = worker
        self.busy[slot] = task

    def _idle_slots(self) -> list[int]:
        return [slot for slot in self._workers if slot not in self.busy]

    def _end(self, slot: int) -> None:
        """End the worker in a slot, if there is one."""
        self.busy.pop(slot, None)
        worker = self._workers.pop(slot, None)
        if worker is not None:
            worker.end()
