"""The process of a tracker: tells one tracker what it is sent, and answers how that went."""

import queue
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from toxbench.executors.spawn import end_child, leave_with_parent, start_child
from toxbench.plugin.contracts import Tracker
from toxbench.plugin.registry import EventListener, Registered, Registry
from toxbench.records import CellRecord
from toxbench.settings import digest
from toxbench.util.atomic import make_folder
from toxbench.util.text import format_duration

_GRACE = 10.0  # seconds to finish what was heard, after the run's process is gone
_TOLD = ".told"


@dataclass(frozen=True)
class Start:
    """Which tracker it is.

    Attributes:
        name: of the tracker.
        plugin: of another distribution that brings it; None: toxbench itself.
        folder: where it writes.
    """

    name: str
    plugin: str | None
    folder: Path


@dataclass(frozen=True)
class Event:
    """A hook to call."""

    hook: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Close:
    """There is nothing more to tell."""


Message = Start | Event | Close
Answer = str | None  # what went wrong


def already_told(folder: Path) -> frozenset[str]:
    """Return `mark` of every cell that the tracker of a folder was told to its end."""
    try:
        return frozenset((folder / _TOLD).read_text(encoding="ascii").split())
    except (FileNotFoundError, UnicodeDecodeError):  # nothing yet, or damaged: all is told again
        return frozenset()


def mark(record: CellRecord) -> str:
    """Tell a stored cell from every other, and from an earlier one of its key."""
    return digest(record.model_dump(mode="json"))


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until it closes."""
    leave_with_parent(_GRACE)
    told = _Told()
    with Connection(descriptor) as connection:
        while True:
            try:
                message: Message = connection.recv()
            except EOFError:  # the run is gone; what it told is finished all the same
                told.take(Close())
                return
            connection.send(told.take(message))
            if isinstance(message, Close):
                return


class _Told:
    """The tracker, from its start on."""

    def __init__(self) -> None:
        self._folder = Path()
        self._callbacks: object = None
        self._tell: Callable[[str, Mapping[str, object]], None]

    def take(self, message: Message) -> Answer:
        """Do what a message asks for; return what the tracker raised."""
        try:
            if isinstance(message, Start):
                self._start(message)
            elif isinstance(message, Event):
                self._tell(message.hook, message.arguments)
                self._note(message.arguments.get("result"))
            else:
                self._close()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, and the run goes on
            return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        return None

    def _start(self, start: Start) -> None:
        registry = Registry.discover([] if start.plugin is None else [start.plugin])
        make_folder(start.folder)
        self._folder = start.folder
        self._callbacks = registry.tracker(start.name).item.start(start.folder)
        self._tell = EventListener(self._callbacks).notify

    def _note(self, record: object) -> None:
        if isinstance(record, CellRecord):
            with (self._folder / _TOLD).open("a", encoding="ascii") as file:
                file.write(f"{mark(record)}\n")

    def _close(self) -> None:
        close: Any = getattr(self._callbacks, "close", None)
        if close is not None:
            close()


FOLDER = "trackers"  # beside the cells
_WHEN_INTERRUPTED = 5.0  # seconds
_TO_END = 2.0  # seconds, after its end of the socket was closed


class Warned(Interface):
    """Hears what a user should know."""

    def warn(self, message: str) -> None:
        """Hear one line."""


@contextmanager
def tracking(
    folder: Path,
    trackers: Sequence[Registered[Tracker]],
    environ: Mapping[str, str],
    feedback: Warned,
) -> Iterator["Trackers"]:
    """Start trackers, and end them with the context: in order, or soon if it is left by an error.

    Args:
        folder: of the protocol.
        trackers: that were asked for.
        environ: of their processes.
        feedback: hears of each tracker that failed, once.
    """
    started = Trackers([_Process(folder / FOLDER, found, environ) for found in trackers], feedback)
    try:
        yield started
    except BaseException:
        started.end(_WHEN_INTERRUPTED)
        raise
    started.end()


class Trackers:
    """All trackers of a run."""

    def __init__(self, processes: Sequence["_Process"], feedback: Warned) -> None:
        self._processes = processes
        self._feedback = feedback

    def tell(self, hook: str, **arguments: object) -> None:
        """Pass an event on, in the background."""
        for process in self._processes:
            process.tell(Event(hook, arguments))
        self._warn()

    def catch_up(self, records: Iterable[CellRecord]) -> None:
        """Tell each tracker what it was not told when these cells were stored."""
        for record in records if self._processes else ():
            for process in self._processes:
                process.catch_up(record)

    def end(self, patience: float | None = None) -> None:
        """Wait until everything is told, or as long as each of them may take; end them."""
        for process in self._processes:
            process.end(patience)
        self._warn()

    def _warn(self) -> None:
        for process in self._processes:
            problem = process.new_problem()
            if problem is not None:
                self._feedback.warn(problem)


class _Process:
    """One tracker, and the thread that talks to it."""

    def __init__(
        self, folder: Path, found: Registered[Tracker], environ: Mapping[str, str]
    ) -> None:
        self._tracker = found.item
        self._who = f"tracker {found.item.name!r} of {found.distribution}"
        self._told = already_told(folder / found.item.name)
        self._problem: str | None = None
        self._is_warned = False
        self._is_lost = False
        self._waiting: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._process, self._connection = start_child("toxbench.benchmark.tracking", environ)
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()
        self.tell(Start(found.item.name, found.third_party_plugin, folder / found.item.name))

    def tell(self, message: Message) -> None:
        """Send a message as soon as those before it were answered."""
        self._waiting.put(message)

    def catch_up(self, record: CellRecord) -> None:
        """Tell a stored cell from its first epoch on, unless that was done."""
        if mark(record) in self._told:
            return
        for epoch in record.epochs:
            arguments = {"cell": record.key, "epoch": epoch}
            self.tell(Event("toxbench_epoch_finished", arguments))
        self.tell(Event("toxbench_cell_finished", {"result": record}))

    def new_problem(self) -> str | None:
        """Return what went wrong first, once."""
        if self._problem is None or self._is_warned:
            return None
        self._is_warned = True
        return f"{self._who}: {self._problem}; the run's results are not touched by it"

    def end(self, patience: float | None) -> None:
        """Let it finish within a time, its own if none is given; then end its process."""
        self.tell(Close())
        allowed = self._tracker.patience if patience is None else patience
        self._thread.join(allowed)
        if self._thread.is_alive():
            self._note(
                f"was not done {format_duration(allowed)} after the last cell and is ended; what "
                "it was not told, the next run with it tells it"
            )
        self._process.kill()  # where the thread still waits for an answer, it gets the end instead
        self._thread.join()
        end_child(self._process, self._connection)

    def _talk(self) -> None:
        """Send what waits, one after the other; after a failed start or a hang, nothing more."""
        while True:
            message = self._waiting.get()
            if not self._is_lost:
                answer = self._ask(message)
                if answer is not None:
                    self._note(answer)
                    self._is_lost = self._is_lost or isinstance(message, Start)
            if isinstance(message, Close):
                return

    def _ask(self, message: Message) -> Answer:
        try:
            self._connection.send(message)
            if self._connection.poll(self._tracker.patience):
                answer: Answer = self._connection.recv()
                return answer
        except (EOFError, OSError):
            self._is_lost = True
            return f"its process ended with exit code {self._code()}"
        self._is_lost = True
        self._process.kill()
        return f"did not answer within {format_duration(self._tracker.patience)} and is ended"

    def _code(self) -> int:
        try:
            return self._process.wait(_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _note(self, problem: str) -> None:
        self._problem = self._problem or problem
