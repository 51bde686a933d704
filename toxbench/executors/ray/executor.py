"""Tasks on a Ray cluster. Ray itself is only in a process of its own: see `ray_driver`.

There its threads, signal handlers, banners and crashes reach nothing of ours, and a cluster that
does not answer can be left without waiting.
"""

import re
import socket
import subprocess
import sys
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
    RunnerConfig,
    Task,
    TaskCallbacks,
    TaskError,
    Tasks,
)
from toxbench.executors.ray.messages import (
    Begin,
    Capacity,
    Connect,
    Connected,
    Ended,
    Message,
    RefusedError,
    Started,
    Stop,
    TaskEnvironment,
    Tell,
)
from toxbench.executors.ray.transfer import put_files
from toxbench.executors.spawn import end_child, start_child

_TO_ANSWER = 5.0  # seconds in which an address takes a connection
_TO_JOIN, _TO_START = 60.0, 180.0  # a cluster that is there; a Ray of our own
_TO_LEAVE = 10.0
_ERRORS: dict[str, type[ToxbenchError]] = {
    kind.__name__: kind for kind in (SettingsError, StorageError, TryAgainError)
}
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
_END, _FULL = object(), object()
_SECRET = re.compile(r"(^|_)(TOKEN|SECRET|PASSW\w*|CREDENTIALS?|(API_?|ACCESS_)?KEY(_ID)?)(_|$)")


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out variables whose names say that they open something; no other machine needs them."""
    return {name: value for name, value in environ.items() if not _SECRET.search(name.upper())}


@dataclass(frozen=True)
class RayExecutor:
    """The executor of a cluster. What a task gives is the same as in a worker process here.

    Ray decides where and when a task runs, and runs it again where its node was lost.

    Attributes:
        address: of the cluster; None: Ray is started on this machine, and ended with the tasks.
        environ: that a task sees, as far as it names no place of this machine.
        cpus: threads of a task.
        gpus: share of a GPU of a task that uses one.
        at_once: at most so many tasks; None: as many as the cluster holds.
        local_cpus: of the Ray that is started here.
        seconds: what one task may take; None: any time.
    """

    address: str | None
    environ: Mapping[str, str]
    cpus: int
    gpus: float
    at_once: int | None
    local_cpus: int
    seconds: float | None = None

    def compute(self, setup: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute tasks on the cluster; see `Executor`.

        Raises:
            TryAgainError: the cluster does not answer, or was lost.
            SettingsError: no node of it can hold a task, or it has another Ray or toxbench.
        """
        first = next(tasks, _END)
        if first is _END:  # nothing is connected to for nothing
            return
        with self._driver() as connection:
            cluster = _Cluster(connection, self.at_once)
            self._connect(setup, cluster)
            cluster.compute(setup, chain([cast("Task | None", first)], tasks), callbacks)

    @contextmanager
    def _driver(self) -> Iterator[Connection]:
        """Start the process that talks to Ray; at the end let it leave in order, or end it."""
        _probe(self.address)
        process, connection = start_child(
            "toxbench.executors.ray.driver", {**self.environ, **_QUIET}, subprocess.DEVNULL
        )
        try:
            yield connection
        finally:
            connection.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_TO_LEAVE)
            end_child(process, connection)

    def _connect(self, setup: RunnerConfig, cluster: "_Cluster") -> None:
        terms = TaskEnvironment(
            environ=without_secrets(self.environ),
            path=tuple(sys.path),
            threads=self.cpus,
            seconds=self.seconds,
            version=version("toxbench"),
        )
        cluster.send(Connect(self.address, self.local_cpus, self.gpus, setup, terms))
        where = f"the Ray cluster at {self.address}" if self.address else "Ray on this machine"
        patience = _TO_JOIN if self.address else _TO_START
        if not isinstance(cluster.message(patience), Connected):
            raise TryAgainError(f"{where} did not answer within {patience:.0f} s; is it running?")


class _Cluster:
    """The cluster, through the process that talks to it."""

    def __init__(self, connection: Connection, at_once: int | None) -> None:
        self._connection = connection
        self._at_once = at_once
        self._room = 1
        self._numbers = count()
        self._at_work: dict[int, _AtWork] = {}

    def send(self, message: object) -> None:
        """Send a message; a process that is gone is noticed when it is listened to."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)

    def message(self, patience: float | None) -> Message | None:
        """Wait for a message; None where none came in so many seconds.

        Raises:
            ToxbenchError: nothing can go on.
            TryAgainError: the cluster was lost.
        """
        try:
            if not self._connection.poll(patience):
                return None
            message: Message = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise TryAgainError(
                "the Ray cluster was lost; finished work is stored, start the same command "
                "again when it is back"
            ) from error
        if isinstance(message, RefusedError):
            raise _ERRORS[message.kind](message.message)
        return message

    def compute(self, setup: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Begin tasks while there is room, and hear of them."""
        while True:
            wanted = self._fill(tasks)
            if not self._at_work and wanted is _END:
                return
            message = self.message(POLL_SECONDS if wanted is None else None)
            if isinstance(message, Capacity):
                self._room = message.count
            elif isinstance(message, Started | Tell | Ended) and message.number in self._at_work:
                self._hear(message, setup, callbacks)

    def _fill(self, tasks: Tasks) -> object:
        """Begin tasks while there are some, and room; return None where one may come later."""
        while len(self._at_work) < (self._at_once or self._room):
            task = next(tasks, _END)
            if task is None or task is _END:
                return task
            number = next(self._numbers)
            self._at_work[number] = _AtWork(cast(Task, task))
            self.send(Begin(number, self._at_work[number].task.spec))
        return _FULL

    def _hear(
        self, message: Started | Tell | Ended, setup: RunnerConfig, callbacks: TaskCallbacks
    ) -> None:
        found = self._at_work[message.number]
        if not found.is_begun:
            found.is_begun = True
            callbacks.started(found.task)
        if isinstance(message, Tell):
            said: tuple[object, ...] = (
                (message.report,) if message.place == found.on_progress else ()
            )
        else:
            said = message.reports[found.on_progress :] if isinstance(message, Ended) else ()
        for report in said:
            found.on_progress += 1
            if not callbacks.on_progress(found.task, report):
                self.send(Stop(message.number))
                del self._at_work[message.number]
                return
        if isinstance(message, Ended):
            del self._at_work[message.number]
            self._end(found.task, message, setup, callbacks)

    def _end(self, task: Task, ended: Ended, setup: RunnerConfig, callbacks: TaskCallbacks) -> None:
        if isinstance(ended.value, TaskError):
            callbacks.failed(task, ended.value)
            return
        if setup.writes is not None:
            put_files(ended.files, setup.writes)
        callbacks.done(task, ended.value)


@dataclass
class _AtWork:
    """A task that was sent, and what was heard of it."""

    task: Task
    is_begun: bool = False
    on_progress: int = 0


def _probe(address: str | None) -> None:
    """Refuse an address that takes no connection: Ray itself would wait for minutes.

    Raises:
        TryAgainError: nothing answers there.
    """
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _TO_ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        raise TryAgainError(
            f"no Ray cluster answers at {address} ({reason}); start it (ray start --head), or "
            "mend --ray-address"
        ) from error
