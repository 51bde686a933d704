"""The process that talks to Ray: one Ray task for each of ours; Ray decides where it runs and when.

Retries after the loss of a node are Ray's own. What a task says comes through an actor on the head
node, which is only for following it: its result holds all of it once more.
"""

import asyncio
import importlib
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from toxbench.executors.base import TaskError
from toxbench.executors.ray import task as ray_task
from toxbench.executors.ray.messages import (
    Begin,
    Capacity,
    Connect,
    Connected,
    Ended,
    Message,
    Missing,
    RefusedError,
    Started,
    Stop,
)
from toxbench.executors.ray.transfer import files_of, hashes
from toxbench.executors.spawn import leave_with_parent

ray: Any = importlib.import_module("ray")  # its types are there only in part
_GRACE = 10.0  # seconds to leave the cluster, after the run's process is gone
_RETRIES = 3
_TICK = 0.1  # seconds
_LOOK = 2.0  # seconds between two looks at the nodes
_PATIENCE = 60.0  # seconds for which no node may be able to hold a task
_HEAD = "node:__internal_head__"


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until it closes."""
    leave_with_parent(_GRACE)
    with Connection(descriptor) as connection:
        try:
            asked: Connect = connection.recv()
            refused = _join(asked)
            if refused is not None:
                connection.send(refused)
                return
            connection.send(Connected())
            driver = _Driver(connection, asked)
            while not driver.is_over:
                driver.go_on()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the run has what it wanted, or was ended
        finally:
            ray.shutdown()


def _join(asked: Connect) -> RefusedError | None:
    """Start Ray, or join the cluster; return why that cannot be."""
    own: dict[str, Any] = {"num_cpus": asked.local_cpus, "include_dashboard": False}
    ended = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # for what Ray starts
    try:
        ray.init(
            address=asked.address or "local",
            log_to_driver=False,
            **({} if asked.address else own),
        )
    except ConnectionError as error:
        return RefusedError("TryAgainError", _unreachable(asked.address, error))
    except (RuntimeError, ValueError) as error:  # another version of Ray or of Python
        return RefusedError("SettingsError", f"--ray-address {asked.address}: {_first_line(error)}")
    finally:
        signal.signal(signal.SIGTERM, ended)
    return None


def _unreachable(address: str | None, error: Exception) -> str:
    if address == "auto":
        return "no Ray cluster runs on this machine; first: ray start --head, or leave out auto"
    return f"the Ray cluster at {address} does not answer: {_first_line(error)}"


class _Inbox:
    """The actor that tasks tell what happens."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Message] = asyncio.Queue()

    async def put(self, message: Message) -> None:
        """Take one message."""
        await self._waiting.put(message)

    async def take(self) -> list[Message]:
        """Return what there is, as soon as there is something."""
        messages = [await self._waiting.get()]
        while not self._waiting.empty():
            messages.append(self._waiting.get_nowait())
        return messages


class _Driver:
    """Begins tasks on the cluster, and passes on what is heard of them."""

    def __init__(self, connection: Connection, asked: Connect) -> None:
        self.is_over = False
        self._connection = connection
        self._gpus = asked.gpus
        self._cpus = asked.terms.threads
        self._setup = [ray.put(asked.setup), ray.put(asked.terms)]
        actor: Any = ray.remote(num_cpus=0, resources={_HEAD: 0.001})(_Inbox)
        self._inbox = actor.remote()
        self._news = self._inbox.take.remote()
        self._at_work: dict[Any, Begin] = {}
        self._attempts: dict[int, int] = {}
        self._folders: dict[Path, dict[str, str]] = {}
        self._sent: dict[Path, Mapping[str, Any]] = {}
        self._looked = self._held = time.monotonic()
        self._room = 0
        self._kinds: set[float] = set()

    def go_on(self) -> None:
        """Take what is asked for, and tell what has happened."""
        while self._connection.poll():
            message = self._connection.recv()
            if isinstance(message, Begin):
                self._kinds.add(self._gpus if message.spec.uses_gpu else 0.0)
                self._begin(message)
            elif isinstance(message, Stop):
                self._stop(message.number)
        if self._looked + _LOOK < time.monotonic() or not self._room:
            self._look()
        ready, _ = ray.wait([self._news, *self._at_work], timeout=_TICK)
        for ref in ready:
            if ref == self._news:
                self._tell(ray.get(ref))
                self._news = self._inbox.take.remote()
            elif ref in self._at_work:
                self._end(self._at_work.pop(ref), ref)

    def _begin(self, asked: Begin) -> None:
        spec = asked.spec
        folder = spec.reads
        if folder is not None and folder not in self._folders:
            self._folders[folder] = hashes(folder)
        wanted = {} if folder is None else self._folders[folder]
        sent = None if folder is None else self._sent.get(folder)
        task: Any = ray.remote(
            num_cpus=self._cpus,
            num_gpus=self._gpus if spec.uses_gpu else 0,
            max_retries=_RETRIES,
            max_calls=0,
        )(ray_task.compute)
        ref = task.remote(asked, self._setup, self._inbox, wanted, sent)
        self._at_work[ref] = asked

    def _stop(self, number: int) -> None:
        for ref, asked in list(self._at_work.items()):
            if asked.number == number:
                ray.cancel(ref)
                del self._at_work[ref]

    def _tell(self, messages: list[Message]) -> None:
        for message in messages:
            self._connection.send(message)
            if isinstance(message, Started):
                number = message.number
                self._attempts[number] = self._attempts.get(number, 0) + 1
                # Ray itself never stops to repeat what takes too much of a node's memory.
                if self._attempts[number] > _RETRIES + 1:
                    self._stop(number)
                    self._connection.send(Ended(number, _lost(self._attempts[number] - 1)))

    def _end(self, asked: Begin, ref: Any) -> None:
        """Tell what came of a task; one whose files are missing on its node is begun again."""
        try:
            found = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            found = Ended(asked.number, TaskError("NodeError", _without_trace(error)))
        except ray.exceptions.RayError:
            found = Ended(asked.number, _lost(self._attempts.get(asked.number, 0)))
        if isinstance(found, Missing):
            self._send(found.folder)
            self._begin(asked)
            return
        self._connection.send(found)
        self.is_over = isinstance(found, RefusedError)

    def _send(self, folder: Path) -> None:
        """Put the files of a folder where every node can read them."""
        if folder not in self._sent:
            self._sent[folder] = {p.name: ray.put(p.read_bytes()) for p in files_of(folder)}

    def _look(self) -> None:
        """Count how many tasks the nodes can hold; refuse to wait for ever where none can."""
        self._looked = time.monotonic()
        if not self._kinds:
            return
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(self._fit(node, max(self._kinds)) for node in nodes)
        if all(any(self._fit(node, gpus) for node in nodes) for gpus in self._kinds):
            self._held = self._looked
        elif not self._room:
            self._refuse("SettingsError", self._impossible(nodes))
        elif self._looked - self._held > _PATIENCE:
            self._refuse("TryAgainError", f"nodes were lost: {self._impossible(nodes)}")
        if room and room != self._room:
            self._room = room
            self._connection.send(Capacity(room))

    def _fit(self, node: Mapping[str, float], gpus: float) -> int:
        """Return how many tasks a node holds at once."""
        places = node.get("CPU", 0) // self._cpus
        return int(min(places, node.get("GPU", 0) // gpus) if gpus else places)

    def _impossible(self, nodes: list[Mapping[str, float]]) -> str:
        gpus = max(self._kinds)
        cpus_there = max((node.get("CPU", 0) for node in nodes), default=0)
        gpus_there = max((node.get("GPU", 0) for node in nodes), default=0)
        return (
            f"no node of the Ray cluster can hold a cell: it needs {self._cpus} CPUs and "
            f"{gpus:g} GPUs, and the largest has {cpus_there:g} CPUs and {gpus_there:g} GPUs; use "
            "a smaller --cpus-per-cell or --gpus-per-cell, or add a node"
        )

    def _refuse(self, kind: str, message: str) -> None:
        self.is_over = True
        self._connection.send(RefusedError(kind, message))


def _lost(times: int) -> TaskError:
    return TaskError(
        "NodeLost",
        f"its node was lost, or had no memory left, {max(1, times)} times; use a larger "
        "--cpus-per-cell, so that fewer cells share a node, or a smaller --batch-size",
    )


def _without_trace(error: Exception) -> str:
    """Return the last line of what Ray says: the error itself, without code or arguments."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'no message'} (is this toxbench installed on every node?)"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
