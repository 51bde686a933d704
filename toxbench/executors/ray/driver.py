"""The driver process: submits each task of the main process as one Ray task.

Ray decides where and when a task runs, and retries it if its node is lost. Tasks report progress
through an actor on the head node. Its messages may get lost: the result of a task contains all its
reports again.
"""

import asyncio
import importlib
import os
import signal
import time
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from toxbench.executors.base import TaskError
from toxbench.executors.ray import task as ray_task
from toxbench.executors.ray.messages import (
    CancelTask,
    Capacity,
    Connect,
    Connected,
    FatalError,
    Message,
    MissingFiles,
    StartTask,
    TaskEnded,
    TaskStarted,
)
from toxbench.util.content import hash_files, list_files
from toxbench.util.processes import exit_with_parent

ray: Any = importlib.import_module("ray")  # it is only partly typed
_GRACE_SECONDS = 10.0  # to leave the cluster after the main process is gone
_RETRIES = 3
_POLL_SECONDS = 0.1
_NODES_SECONDS = 2.0  # between two checks of the nodes
_PATIENCE_SECONDS = 60.0  # during which no node may be large enough for a task
_HEAD = "node:__internal_head__"


def main(descriptor: int) -> None:
    """Serve the main process until it closes its end of the socket."""
    exit_with_parent(_GRACE_SECONDS)
    with Connection(descriptor) as connection:
        try:
            request: Connect = connection.recv()
            error = _join(request)
            if error is not None:
                connection.send(error)
                return
            connection.send(Connected())
            driver = _Driver(connection, request)
            while not driver.has_failed:
                driver.step()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the main process has all results, or was killed
        finally:
            ray.shutdown()


def _join(request: Connect) -> FatalError | None:
    """Start Ray, or join the cluster; return the error if that fails.

    Ray makes its processes import from the current folder, which therefore is the root here.
    """
    local: dict[str, Any] = {"num_cpus": request.local_cpus, "include_dashboard": False}
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # processes that Ray starts inherit it
    try:
        with chdir(os.sep):
            ray.init(
                address=request.address or "local",
                log_to_driver=False,
                **({} if request.address else local),
            )
    except ConnectionError as error:
        return FatalError("TryAgainError", _unreachable(request.address, error))
    except (RuntimeError, ValueError) as error:  # another version of Ray or of Python
        return FatalError("SettingsError", f"--ray-address {request.address}: {_first_line(error)}")
    finally:
        signal.signal(signal.SIGTERM, handler)
    return None


def _unreachable(address: str | None, error: Exception) -> str:
    if address == "auto":
        return (
            "no Ray cluster runs on this machine; start one (ray start --head), or leave out "
            "--ray-address"
        )
    return f"the Ray cluster at {address} does not answer: {_first_line(error)}"


class _Inbox:
    """The actor that collects messages of tasks."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Message] = asyncio.Queue()

    async def put(self, message: Message) -> None:
        """Add a message."""
        await self._queue.put(message)

    async def take(self) -> list[Message]:
        """Wait for at least one message; return all and remove them."""
        messages = [await self._queue.get()]
        while not self._queue.empty():
            messages.append(self._queue.get_nowait())
        return messages


class _Driver:
    """Submits tasks to the cluster and forwards their messages to the main process."""

    def __init__(self, connection: Connection, request: Connect) -> None:
        self.has_failed = False
        self._connection = connection
        self._gpus = request.gpus
        self._cpus = request.environment.threads
        self._shared = [ray.put(request.config), ray.put(request.environment)]
        actor: Any = ray.remote(num_cpus=0, resources={_HEAD: 0.001})(_Inbox)
        self._inbox = actor.remote()
        self._next_messages = self._inbox.take.remote()
        self._running: dict[Any, StartTask] = {}
        self._attempts: dict[int, int] = {}
        self._hashes: dict[Path, dict[str, str]] = {}
        self._contents: dict[Path, Mapping[str, Any]] = {}
        self._nodes_checked = self._last_sufficient = time.monotonic()
        self._capacity = 0
        self._gpu_shares: set[float] = set()  # of all tasks so far

    def step(self) -> None:
        """Handle the messages of the main process and of the cluster."""
        while self._connection.poll():
            message = self._connection.recv()
            if isinstance(message, StartTask):
                self._gpu_shares.add(self._gpus if message.uses_gpu else 0.0)
                self._start(message)
            elif isinstance(message, CancelTask):
                self._cancel(message.number)
        if self._nodes_checked + _NODES_SECONDS < time.monotonic() or not self._capacity:
            self._check_nodes()
        ready, _ = ray.wait([self._next_messages, *self._running], timeout=_POLL_SECONDS)
        for ref in ready:
            if ref == self._next_messages:
                self._forward(ray.get(ref))
                self._next_messages = self._inbox.take.remote()
            elif ref in self._running:
                self._finish(self._running.pop(ref), ref)

    def _start(self, start: StartTask) -> None:
        folder = None if start.reads is None else start.reads.absolute()
        if folder is not None and folder not in self._hashes:
            self._hashes[folder] = hash_files(folder)
        hashes = {} if folder is None else self._hashes[folder]
        contents = None if folder is None else self._contents.get(folder)
        task: Any = ray.remote(
            num_cpus=self._cpus,
            num_gpus=self._gpus if start.uses_gpu else 0,
            max_retries=_RETRIES,
            max_calls=0,
        )(ray_task.compute)
        ref = task.remote(replace(start, reads=folder), self._shared, self._inbox, hashes, contents)
        self._running[ref] = start

    def _cancel(self, number: int) -> None:
        for ref, start in list(self._running.items()):
            if start.number == number:
                ray.cancel(ref)
                del self._running[ref]

    def _forward(self, messages: list[Message]) -> None:
        for message in messages:
            self._connection.send(message)
            if isinstance(message, TaskStarted):
                number = message.number
                self._attempts[number] = self._attempts.get(number, 0) + 1
                # Ray never stops retrying a task that exhausts a node's memory.
                if self._attempts[number] > _RETRIES + 1:
                    self._cancel(number)
                    error = _node_lost_error(self._attempts[number] - 1)
                    self._connection.send(TaskEnded(number, error))

    def _finish(self, start: StartTask, ref: Any) -> None:
        """Send the result of a task; restart a task whose node lacks its files."""
        try:
            result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            result = TaskEnded(start.number, TaskError("NodeError", _last_line(error)))
        except ray.exceptions.RayError:
            attempts = self._attempts.get(start.number, 0)
            result = TaskEnded(start.number, _node_lost_error(attempts))
        if isinstance(result, MissingFiles):
            folder = result.folder
            if folder not in self._contents:  # every node can read Ray's object store
                files = list_files(folder)
                self._contents[folder] = {n: ray.put(p.read_bytes()) for n, p in files.items()}
            self._start(start)
            return
        self._connection.send(result)
        if isinstance(result, FatalError):
            self.has_failed = True

    def _check_nodes(self) -> None:
        """Send the capacity of the nodes; fail if no node is large enough for a task."""
        self._nodes_checked = time.monotonic()
        if not self._gpu_shares:
            return
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        capacity = sum(self._node_capacity(node, max(self._gpu_shares)) for node in nodes)
        if all(any(self._node_capacity(n, gpus) for n in nodes) for gpus in self._gpu_shares):
            self._last_sufficient = self._nodes_checked
        elif not self._capacity:
            self._fail("SettingsError", self._too_small(nodes))
        elif self._nodes_checked - self._last_sufficient > _PATIENCE_SECONDS:
            self._fail("TryAgainError", f"nodes were lost: {self._too_small(nodes)}")
        if capacity and capacity != self._capacity:
            self._capacity = capacity
            self._connection.send(Capacity(capacity))

    def _node_capacity(self, node: Mapping[str, float], gpus: float) -> int:
        """Return how many tasks a node can compute at once."""
        by_cpus = node.get("CPU", 0) // self._cpus
        return int(min(by_cpus, node.get("GPU", 0) // gpus) if gpus else by_cpus)

    def _too_small(self, nodes: list[Mapping[str, float]]) -> str:
        gpus = max(self._gpu_shares)
        max_cpus = max((node.get("CPU", 0) for node in nodes), default=0)
        max_gpus = max((node.get("GPU", 0) for node in nodes), default=0)
        return (
            f"no node of the Ray cluster can hold a cell: it needs {self._cpus} CPUs and "
            f"{gpus:g} GPUs, and the largest has {max_cpus:g} CPUs and {max_gpus:g} GPUs; use "
            "a smaller --cpus-per-cell or --gpus-per-cell, or add a node"
        )

    def _fail(self, kind: str, message: str) -> None:
        self.has_failed = True
        self._connection.send(FatalError(kind, message))


def _node_lost_error(attempts: int) -> TaskError:
    return TaskError(
        "NodeLost",
        f"its node was lost or ran out of memory {max(1, attempts)} times; use a larger "
        "--cpus-per-cell, so that fewer cells share a node, or a smaller --batch-size",
    )


def _last_line(error: Exception) -> str:
    """Return the last line of an error of Ray: the error itself, without code or arguments."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'no message'} (is this toxbench installed on every node?)"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
