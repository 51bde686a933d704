"""Trackers, each in its own process, which cannot affect the results of the run.

The main process sends events to a `_TrackerProcess`; the `_TrackerServer` in the child process
calls the hooks of the tracker and replies whether they raised an error.
"""

import queue
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from toxbench.benchmark.progress import Feedback
from toxbench.plugin.contracts import Tracker
from toxbench.plugin.registry import EventListener, Registered, Registry
from toxbench.records import CellRecord
from toxbench.settings import digest
from toxbench.util.atomic import make_folder
from toxbench.util.processes import end_child, exit_with_parent, start_child
from toxbench.util.text import format_duration

FOLDER = "trackers"  # next to the cells
_LOGGED_CELLS = ".logged"  # file in the folder of a tracker: the digests of the cells it has logged
_GRACE_SECONDS = 10.0  # to log the received events after the main process is gone
_INTERRUPTED_SECONDS = 5.0  # to log the sent events if the run is interrupted
_EXIT_SECONDS = 2.0  # in which a process exits after it closed its socket


@dataclass(frozen=True)
class Start:
    """Start the tracker.

    Attributes:
        name: of the tracker.
        plugin: of another distribution that provides it; None for toxbench's own.
        folder: to which the tracker writes.
    """

    name: str
    plugin: str | None
    folder: Path


@dataclass(frozen=True)
class Event:
    """Call a hook of the tracker."""

    hook: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Close:
    """Close the tracker; no message follows."""


Message = Start | Event | Close
Reply = str | None  # the error of the tracker; None for success


@contextmanager
def tracking(
    folder: Path,
    trackers: Sequence[Registered[Tracker]],
    environ: Mapping[str, str],
    feedback: Feedback,
) -> Iterator["Trackers"]:
    """Start trackers; end them with the context, and soon if an exception leaves it.

    ``feedback`` receives one warning for each tracker that fails.
    """
    processes = [_TrackerProcess(folder / FOLDER, tracker, environ) for tracker in trackers]
    running = Trackers(processes, feedback)
    try:
        yield running
    except BaseException:
        running.end(_INTERRUPTED_SECONDS)
        raise
    running.end()


@dataclass(frozen=True)
class Trackers:
    """All trackers of a run."""

    _processes: Sequence["_TrackerProcess"]
    _feedback: Feedback

    def log(self, hook: str, **arguments: object) -> None:
        """Send an event to all trackers, without waiting for their replies."""
        for process in self._processes:
            process.send(Event(hook, arguments))
        self._warn()

    def log_stored(self, records: Iterable[CellRecord]) -> None:
        """Send the events of stored cells to each tracker that has not logged them yet."""
        for record in records if self._processes else ():
            for process in self._processes:
                process.log_stored(record)

    def end(self, timeout: float | None = None) -> None:
        """Wait until all events are logged, ``timeout`` seconds per tracker; then end them."""
        for process in self._processes:
            process.end(timeout)
        self._warn()

    def _warn(self) -> None:
        for process in self._processes:
            warning = process.take_warning()
            if warning is not None:
                self._feedback.warn(warning)


class _TrackerProcess:
    """The handle of a tracker's process; a thread sends the messages and awaits the replies."""

    def __init__(
        self, folder: Path, registered: Registered[Tracker], environ: Mapping[str, str]
    ) -> None:
        self._tracker = registered.item
        self._title = f"tracker {registered.item.name!r} of {registered.distribution}"
        self._logged = logged_cells(folder / registered.item.name)
        self._problem: str | None = None
        self._is_reported = False
        self._is_lost = False
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._process, self._connection = start_child("toxbench.benchmark.tracking", environ)
        self._thread = threading.Thread(target=self._send_queued, daemon=True)
        self._thread.start()
        name = registered.item.name
        self.send(Start(name, registered.third_party_plugin, folder / name))

    def send(self, message: Message) -> None:
        """Queue a message; it is sent after the replies to all earlier ones."""
        self._queue.put(message)

    def log_stored(self, record: CellRecord) -> None:
        """Send the events of a stored cell, unless the tracker has logged it."""
        if record_digest(record) in self._logged:
            return
        for epoch in record.epochs:
            arguments = {"cell": record.key, "epoch": epoch}
            self.send(Event("toxbench_epoch_finished", arguments))
        self.send(Event("toxbench_cell_finished", {"result": record}))

    def take_warning(self) -> str | None:
        """Return a warning of the first problem, once; None if there is nothing new."""
        if self._problem is None or self._is_reported:
            return None
        self._is_reported = True
        return f"{self._title}: {self._problem}; the results of the run are not affected"

    def end(self, timeout: float | None) -> None:
        """Wait until the queue is empty, ``timeout`` seconds at most; then kill the process."""
        self.send(Close())
        seconds = self._tracker.patience if timeout is None else timeout
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._add_problem(
                f"had not finished {format_duration(seconds)} after the last cell and was ended; "
                "the next run with this tracker logs the rest"
            )
        self._process.kill()  # if the thread still waits for a reply, it gets an EOFError
        self._thread.join()
        end_child(self._process, self._connection)

    def _send_queued(self) -> None:
        """Send queued messages one by one; none after a failed start or a hang."""
        while True:
            message = self._queue.get()
            if not self._is_lost:
                problem = self._request(message)
                if problem is not None:
                    self._add_problem(problem)
                    self._is_lost = self._is_lost or isinstance(message, Start)
            if isinstance(message, Close):
                return

    def _request(self, message: Message) -> Reply:
        try:
            self._connection.send(message)
            if self._connection.poll(self._tracker.patience):
                reply: Reply = self._connection.recv()
                return reply
        except (EOFError, OSError):
            self._is_lost = True
            return f"its process ended with exit code {self._exit_code()}"
        self._is_lost = True
        self._process.kill()
        return f"did not answer within {format_duration(self._tracker.patience)} and was ended"

    def _exit_code(self) -> int:
        try:
            return self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _add_problem(self, problem: str) -> None:
        self._problem = self._problem or problem


def logged_cells(folder: Path) -> frozenset[str]:
    """Return the digests of the cells that the tracker of a folder has logged completely."""
    try:
        return frozenset((folder / _LOGGED_CELLS).read_text(encoding="ascii").split())
    except (FileNotFoundError, UnicodeDecodeError):  # missing or damaged: all are logged again
        return frozenset()


def record_digest(record: CellRecord) -> str:
    """Return a digest that differs for every stored cell, even for two of the same key."""
    return digest(record.model_dump(mode="json"))


def main(descriptor: int) -> None:
    """Serve the main process until it closes its end of the socket."""
    exit_with_parent(_GRACE_SECONDS)
    server = _TrackerServer()
    with Connection(descriptor) as connection:
        while True:
            try:
                message: Message = connection.recv()
            except EOFError:  # the main process is gone; the tracker still closes its files
                server.handle(Close())
                return
            connection.send(server.handle(message))
            if isinstance(message, Close):
                return


class _TrackerServer:
    """The tracker, in its own process."""

    def __init__(self) -> None:
        self._folder = Path()
        self._callbacks: object = None
        self._call_hook: Callable[[str, Mapping[str, object]], None]

    def handle(self, message: Message) -> Reply:
        """Handle a message; return the error of the tracker, if it raised one."""
        try:
            if isinstance(message, Start):
                self._start(message)
            elif isinstance(message, Event):
                self._call_hook(message.hook, message.arguments)
                self._note_logged(message.arguments.get("result"))
            else:
                self._close()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, and the run continues
            return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        return None

    def _start(self, start: Start) -> None:
        registry = Registry.load([] if start.plugin is None else [start.plugin])
        make_folder(start.folder)
        self._folder = start.folder
        self._callbacks = registry.tracker(start.name).item.start(start.folder)
        self._call_hook = EventListener(self._callbacks).notify

    def _note_logged(self, record: object) -> None:
        if isinstance(record, CellRecord):
            with (self._folder / _LOGGED_CELLS).open("a", encoding="ascii") as file:
                file.write(f"{record_digest(record)}\n")

    def _close(self) -> None:
        close: Any = getattr(self._callbacks, "close", None)
        if close is not None:
            close()
