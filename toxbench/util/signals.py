"""Graceful stops: on a signal, or on a request of another process."""

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
Item = TypeVar("Item")

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_EXIT_REASONS = {
    signal.SIGINT: "interrupted", _HANGUP: "terminated by a hangup", signal.SIGTERM: "terminated"
}  # fmt: skip
STOP_SIGNALS = tuple(number for number in _EXIT_REASONS if number is not None)
_SHOW_CURSOR = b"\x1b[?25h"  # a live display hides it


class StopRequested(BaseException):
    """A long computation stopped on request; the state that it needs to resume is stored.

    It is not an `Exception`, so that error handlers do not catch it: nothing went wrong.
    """


class TerminationSignal(BaseException):
    """A signal asked this process to end. Open files and contexts are closed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(_EXIT_REASONS[signal.Signals(number)])
        self.exit_code = 128 + number


def never_stop() -> bool:
    """Return False: a `ShouldStop` that never stops."""
    return False


def iterate_until(should_stop: ShouldStop, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items until a stop is requested.

    Raises:
        StopRequested: ``should_stop`` returned True.
    """
    for item in items:
        if should_stop():
            raise StopRequested
        yield item


class StopSource(Protocol):
    """Source of requests to stop a long computation."""

    def watching(self) -> AbstractContextManager[ShouldStop]:
        """Yield a function that returns whether to stop, at any time inside the context."""


class SignalStop:
    """Ctrl-C, SIGTERM and SIGHUP as requests to stop, deferred until the context ends."""

    @contextmanager
    def watching(self) -> Iterator[ShouldStop]:
        """Defer signals inside the context; at its end, pass one on to the previous handler.

        A second signal is not deferred, except SIGHUP: for one closed terminal, the shell and the
        kernel each send it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield never_stop  # Python runs signal handlers in the main thread only
            return
        received: list[int] = []

        def defer(number: int, frame: FrameType | None) -> None:
            if received and number == _HANGUP:
                return
            if received:
                restore_handlers()
                try:
                    signal.raise_signal(received[0])
                finally:
                    signal.raise_signal(number)
            received.append(number)

        def restore_handlers() -> None:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)

        handled = [
            number
            for number in STOP_SIGNALS
            if signal.getsignal(number) not in (signal.SIG_IGN, None)
        ]
        previous_handlers = {number: signal.signal(number, defer) for number in handled}
        try:
            yield lambda: bool(received)
        finally:
            restore_handlers()
            if received:
                signal.raise_signal(received[0])


@contextmanager
def raise_on_termination(echo_seconds: float = 0.0) -> Iterator[None]:
    """Raise `TerminationSignal` at the first stop signal; exit at once at the second.

    The stop signals are Ctrl-C, SIGTERM and SIGHUP. A second SIGHUP is ignored, as in `SignalStop`.

    An `Exception` that leaves the context after a signal is replaced by `TerminationSignal`,
    because libraries wrap the exception that interrupts them.

    Args:
        echo_seconds: a second signal within this time is ignored as a copy of the first: the
            parent process passes on a signal that the terminal sends to both.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python sets signal handlers in the main thread only
        return
    received: list[int] = []
    received_at = 0.0

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal received_at
        is_echo = number == _HANGUP or time.monotonic() - received_at < echo_seconds
        if received and is_echo:
            return
        if received:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR)
            os._exit(128 + number)
        received.append(number)
        received_at = time.monotonic()
        raise TerminationSignal(number)

    # Signals that were ignored when this process began (nohup) stay ignored.
    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    previous_handlers = {number: signal.signal(number, end) for number in handled}
    try:
        yield
    except ProcessLostError:
        raise  # it holds the reason why the signal was sent
    except Exception as error:
        if received:
            raise TerminationSignal(received[0]) from error
        raise
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
