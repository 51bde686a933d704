"""Being asked to stop in the middle of something long, by a signal or by another process."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Protocol, TypeVar

Asked = Callable[[], bool]


class Stopped(BaseException):
    """Something long has stopped because it was asked to; what it needs to go on is kept.

    Not an `Exception`: nothing went wrong, and nobody who handles errors is to take it for one.
    """


Item = TypeVar("Item")


def never() -> bool:
    """Do not ask to stop."""
    return False


def until(is_asked: Asked, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, as long as nobody asks to stop.

    Raises:
        Stopped: somebody does.
    """
    for item in items:
        if is_asked():
            raise Stopped
        yield item


class Interruption(Protocol):
    """Where it comes from that something long is to stop."""

    def listening(self) -> AbstractContextManager[Asked]:
        """Yield what tells, at once and at any time inside, whether to stop."""


class BySignal:
    """Ctrl-C and SIGTERM, each held back until what it interrupts has come to an end in order."""

    @contextmanager
    def listening(self) -> Iterator[Asked]:
        """Hold signals back inside; then whoever handled them before hears of one that came.

        A second signal is not held back.
        """
        if threading.current_thread() is not threading.main_thread():  # only that one hears them
            yield never
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
