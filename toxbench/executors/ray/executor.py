"""The executor that computes tasks on a Ray cluster.

Only the driver process (`toxbench.executors.ray.driver`) imports Ray. Its threads, signal handlers,
banners and crashes cannot affect the main process, which can leave a cluster that does not answer
without waiting for it.
"""

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, count
from multiprocessing.connection import Connection
from typing import cast

from toxbench.errors import SettingsError, StorageError, ToxbenchError, TryAgainError
from toxbench.executors.base import (
    POLL_SECONDS,
    Pickled,
    RunnerConfig,
    Task,
    TaskCallbacks,
    TaskError,
    Tasks,
)
from toxbench.executors.ray.messages import (
    CancelTask,
    Capacity,
    Connect,
    Connected,
    FatalError,
    Message,
    StartTask,
    TaskEnded,
    TaskEnvironment,
    TaskProgress,
    TaskStarted,
    write_files,
)
from toxbench.util.processes import end_child, import_folders, start_child
from toxbench.util.text import is_secret

_PROBE_SECONDS = 5.0  # in which an address accepts a connection
_JOIN_SECONDS, _START_SECONDS = 60.0, 180.0  # for a running cluster; to start Ray
_EXIT_SECONDS = 10.0  # in which the driver leaves the cluster
_ERRORS: dict[str, type[ToxbenchError]] = {
    kind.__name__: kind for kind in (SettingsError, StorageError, TryAgainError)
}
_RAY_ENVIRON = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
_END, _FULL = object(), object()


@dataclass(frozen=True)
class RayExecutor:
    """Computes tasks on a cluster, with the same results as a worker process of this machine.

    Ray decides where and when a task runs, and runs it again if its node is lost.

    Attributes:
        address: of the cluster; None to start Ray on this machine for the time of the tasks.
        environ: environment variables of a task, except those that name folders or devices of
            this machine.
        cpus: number of threads of a task.
        gpus: share of a GPU for each task that uses one.
        max_tasks: number of tasks at once; None for as many as the cluster can hold.
        local_cpus: CPUs of a Ray that is started on this machine.
        seconds: time limit of one task; None for no limit.
    """

    address: str | None
    environ: Mapping[str, str]
    cpus: int
    gpus: float
    max_tasks: int | None
    local_cpus: int
    seconds: float | None = None

    def compute(self, config: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute tasks on the cluster; see `Executor`.

        Raises:
            TryAgainError: the cluster does not answer, or was lost.
            SettingsError: no node can hold a task, or versions of Ray or toxbench differ.
        """
        first = next(tasks, _END)
        if first is _END:  # without tasks, no cluster is needed
            return
        with self._driver() as connection:
            cluster = _Cluster(connection, self.max_tasks)
            self._connect(config, cluster)
            cluster.compute(config, chain([cast("Task | None", first)], tasks), callbacks)

    @contextmanager
    def _driver(self) -> Iterator[Connection]:
        """Start the driver process; at the end let it leave the cluster, or kill it."""
        _probe(self.address)
        process, connection = start_child(
            "toxbench.executors.ray.driver", {**self.environ, **_RAY_ENVIRON}, subprocess.DEVNULL
        )
        try:
            yield connection
        finally:
            connection.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_EXIT_SECONDS)
            end_child(process, connection)

    def _connect(self, config: RunnerConfig, cluster: "_Cluster") -> None:
        environment = TaskEnvironment(
            environ=without_secrets(self.environ),
            path=tuple(import_folders()),
            threads=self.cpus,
            seconds=self.seconds,
            version=version("toxbench"),
            writes_files=config.writes is not None,
        )
        pickled = Pickled.of(config)
        cluster.send(Connect(self.address, self.local_cpus, self.gpus, pickled, environment))
        name = f"the Ray cluster at {self.address}" if self.address else "Ray on this machine"
        timeout = _JOIN_SECONDS if self.address else _START_SECONDS
        if not isinstance(cluster.receive(timeout), Connected):
            raise TryAgainError(f"{name} did not answer within {timeout:.0f} s; is it running?")


class _Cluster:
    """The cluster, reached through the driver process."""

    def __init__(self, connection: Connection, max_tasks: int | None) -> None:
        self._connection = connection
        self._max_tasks = max_tasks
        self._capacity = 1
        self._numbers = count()
        self._running: dict[int, _RunningTask] = {}

    def send(self, message: object) -> None:
        """Send a message; the death of the driver is noticed when its messages are read."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)

    def receive(self, timeout: float | None) -> Message | None:
        """Wait for a message, ``timeout`` seconds at most; None if none arrived."""
        try:
            if not self._connection.poll(timeout):
                return None
            message: Message = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise TryAgainError(
                "the Ray cluster was lost; finished work is stored, start the same command "
                "again when it is back"
            ) from error
        if isinstance(message, FatalError):
            raise _ERRORS[message.kind](message.message)
        return message

    def compute(self, config: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Start tasks as the capacity allows, and handle messages until all have ended."""
        while True:
            next_task = self._start_tasks(tasks)
            if not self._running and next_task is _END:
                return
            message = self.receive(POLL_SECONDS if next_task is None else None)
            if isinstance(message, Capacity):
                self._capacity = message.count
            elif (
                isinstance(message, TaskStarted | TaskProgress | TaskEnded)
                and message.number in self._running
            ):
                self._handle(message, config, callbacks)

    def _start_tasks(self, tasks: Tasks) -> object:
        """Start tasks as the capacity allows; return None if another task may come later."""
        while len(self._running) < (self._max_tasks or self._capacity):
            task = next(tasks, _END)
            if task is None or task is _END:
                return task
            number, running = next(self._numbers), _RunningTask(cast(Task, task))
            self._running[number] = running
            spec = running.task.spec
            self.send(StartTask(number, Pickled.of(spec), spec.reads, spec.uses_gpu))
        return _FULL

    def _handle(
        self,
        message: TaskStarted | TaskProgress | TaskEnded,
        config: RunnerConfig,
        callbacks: TaskCallbacks,
    ) -> None:
        running = self._running[message.number]
        if not running.has_started:
            running.has_started = True
            callbacks.started(running.task)
        for report in running.new_reports(message):
            running.num_reports += 1
            if not callbacks.on_progress(running.task, report):
                self.send(CancelTask(message.number))
                del self._running[message.number]
                return
        if isinstance(message, TaskEnded):
            del self._running[message.number]
            _finish(running.task, message, config, callbacks)


@dataclass
class _RunningTask:
    """A task that was sent; ``num_reports`` of its reports were passed to the callbacks."""

    task: Task
    has_started: bool = False
    num_reports: int = 0

    def new_reports(self, message: TaskStarted | TaskProgress | TaskEnded) -> tuple[object, ...]:
        """Return the reports of a message that the callbacks have not received yet."""
        if isinstance(message, TaskProgress):
            return (message.report,) if message.index == self.num_reports else ()
        return message.reports[self.num_reports :] if isinstance(message, TaskEnded) else ()


def _finish(task: Task, message: TaskEnded, config: RunnerConfig, callbacks: TaskCallbacks) -> None:
    if isinstance(message.value, TaskError):
        callbacks.failed(task, message.value)
        return
    if config.writes is not None:
        write_files(message.files, config.writes)
    callbacks.done(task, message.value.load())


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out variables whose names are those of secrets, which no other machine needs."""
    return {name: value for name, value in environ.items() if not is_secret(name)}


def _probe(address: str | None) -> None:
    """Connect to an address once, because Ray itself would wait for minutes."""
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _PROBE_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        raise TryAgainError(
            f"no Ray cluster answers at {address} ({reason}); start it (ray start --head), or "
            "correct --ray-address"
        ) from error
