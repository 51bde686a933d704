"""The process of a tracker: tells one tracker what it is sent, and answers how that went."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from toxbench.atomic import make_folder
from toxbench.executors.child import leave_with_parent
from toxbench.plugin.registry import Listener, Registry
from toxbench.records import CellRecord
from toxbench.settings import digest

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
        self._listener: object = None
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
        self._listener = registry.tracker(start.name).item.start(start.folder)
        self._tell = Listener(self._listener).tell

    def _note(self, record: object) -> None:
        if isinstance(record, CellRecord):
            with (self._folder / _TOLD).open("a", encoding="ascii") as file:
                file.write(f"{mark(record)}\n")

    def _close(self) -> None:
        close: Any = getattr(self._listener, "close", None)
        if close is not None:
            close()
