"""Ctrl-C and SIGTERM: once, to end in order; twice, to end at once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from toxbench.errors import ProcessLostError

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
