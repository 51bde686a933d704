"""Being asked to stop in the middle of something long, by a signal or by another process."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Protocol, TypeVar

from toxbench.errors import ProcessLostError

ShouldStop = Callable[[], bool]


class StopRequested(BaseException):
    """Something long has stopped because it was asked to; what it needs to go on is kept.

    Not an `Exception`: nothing went wrong, and nobody who handles errors is to take it for one.
    """


Item = TypeVar("Item")


def never_stop() -> bool:
    """Do not ask to stop."""
    return False


def iterate_until(should_stop: ShouldStop, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, as long as nobody asks to stop.

    Raises:
        Stopped: somebody does.
    """
    for item in items:
        if should_stop():
            raise StopRequested
        yield item


class StopSource(Protocol):
    """Where it comes from that something long is to stop."""

    def watching(self) -> AbstractContextManager[ShouldStop]:
        """Yield what tells, at once and at any time inside, whether to stop."""


class SignalStop:
    """Ctrl-C and SIGTERM, each held back until what it interrupts has come to an end in order."""

    @contextmanager
    def watching(self) -> Iterator[ShouldStop]:
        """Hold signals back inside; then whoever handled them before hears of one that came.

        A second signal is not held back.
        """
        if threading.current_thread() is not threading.main_thread():  # only that one hears them
            yield never_stop
            return
        caught: list[int] = []

        def hold(number: int, frame: FrameType | None) -> None:
            if caught:
                give_back()
                try:
                    signal.raise_signal(caught[0])
                finally:
                    signal.raise_signal(number)
            caught.append(number)

        def give_back() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        numbers = (signal.SIGINT, signal.SIGTERM)
        heard = [n for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)]
        before = {number: signal.signal(number, hold) for number in heard}
        try:
            yield lambda: bool(caught)
        finally:
            give_back()
            if caught:
                signal.raise_signal(caught[0])


ENDING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_SHOW_CURSOR = b"\x1b[?25h"  # a live display had hidden it


class Ended(BaseException):
    """A signal asked this process to end. Whatever is open is closed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(ENDING[signal.Signals(number)])
        self.exit_code = 128 + number


@contextmanager
def ending_in_order(echo_seconds: float = 0.0) -> Iterator[None]:
    """Raise `Ended` at the first of these signals; the second ends the process where it stands.

    Args:
        echo_seconds: how soon after the first one a second is the same once more, because the
            process that started this one passes on what the terminal sent to both.

    What is raised inside may be another error by the time that it gets here, because libraries wrap
    what interrupts them.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    asked: list[int] = []
    asked_at = 0.0

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        if asked and time.monotonic() - asked_at < echo_seconds:
            return
        if asked:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR)
            os._exit(128 + number)
        asked.append(number)
        asked_at = time.monotonic()
        raise Ended(number)

    # What was ignored when this process began (nohup) stays so.
    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    except ProcessLostError:
        raise  # it says why the signal was sent
    except Exception as error:
        if asked:
            raise Ended(asked[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
