"""Child processes, graceful stops of processes, and the processes that torchrun starts."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType
from typing import Protocol, TypeVar

from toxbench.errors import ProcessLostError, SettingsError

# The child ignores the signals that may reach the whole process group: its parent decides when it
# exits.
_CHILD_CODE = """
import importlib, json, signal, sys
for name in {"SIGINT", "SIGTERM", "SIGHUP"} & set(dir(signal)):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
sys.stdout.reconfigure(line_buffering=True)  # a killed child loses no printed line
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2]).main(int(sys.argv[3]))
"""
ShouldStop = Callable[[], bool]
Item = TypeVar("Item")

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_EXIT_REASONS = {
    signal.SIGINT: "interrupted", _HANGUP: "terminated by a hangup", signal.SIGTERM: "terminated"
}  # fmt: skip
STOP_SIGNALS = tuple(number for number in _EXIT_REASONS if number is not None)
_SHOW_CURSOR = b"\x1b[?25h"  # a live display hides it


def start_child(
    module: str, environ: Mapping[str, str], output: int = 2, path: Sequence[str] = ()
) -> tuple["subprocess.Popen[bytes]", Connection]:
    """Start ``main(descriptor)`` of a module; return the process and a connection to it.

    The child imports from the folders of this process, but never from the current folder only
    because it is the current one: the modules next to a table are not part of toxbench.

    Args:
        module: to import in the child.
        environ: environment variables of the process.
        output: file descriptor for stdout and stderr of the child; by default the stderr of this
            process, because stdout is for results only.
        path: additional folders to import from.
    """
    folders = list(dict.fromkeys([*import_folders(), *path]))
    parent_socket, child_socket = socket.socketpair()
    command = [sys.executable, "-c", _CHILD_CODE, json.dumps(folders), module]
    with child_socket:
        process = subprocess.Popen(
            [*command, str(child_socket.fileno())],
            stdin=subprocess.PIPE,  # closes when this process is gone; see `exit_with_parent`
            stdout=output,
            stderr=output,
            pass_fds=[child_socket.fileno()],
            env={**environ, "PYTHONSAFEPATH": "1"},  # as -P, and for its own children
        )
    return process, Connection(parent_socket.detach())


def import_folders() -> list[str]:
    """Return ``sys.path`` without the current folder, where ``python -m`` has put it first."""
    is_current = sys.path[:1] and sys.path[0] in {"", os.getcwd()}
    is_configured = os.getcwd() in os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return sys.path[1:] if is_current and not is_configured else sys.path


def end_child(process: "subprocess.Popen[bytes]", connection: Connection) -> None:
    """Kill a child; a second call does nothing."""
    connection.close()
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def describe_exit(process: "subprocess.Popen[bytes]") -> str:
    """Wait for the exit of a process; return its exit code or its signal in words."""
    code = process.wait()
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def exit_with_parent(grace: float = 0) -> None:
    """Exit when the process that started this one is gone, even if it was killed.

    This process may exit by itself within ``grace`` seconds.
    """

    def wait() -> None:
        sys.stdin.buffer.read()
        threading.Event().wait(grace)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@dataclass(frozen=True)
class TorchrunEnv:
    """Position of this process among those of one torchrun; by default a single process.

    Attributes:
        rank: of this process, counted from 0.
        size: number of processes.
        local_rank: rank among the processes of this machine, which is the number of its GPU.
        local_size: number of processes on this machine.
        machines: number of machines.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    machines: int = 1

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "TorchrunEnv":
        """Read torchrun's environment variables; without them, return a single process.

        Raises:
            SettingsError: a variable is not a whole number, or the rank is not below the size.
        """
        if not {"RANK", "WORLD_SIZE"} <= environ.keys():
            return cls()
        size = environ["WORLD_SIZE"]
        variables = {
            "RANK": environ["RANK"],
            "WORLD_SIZE": size,
            "LOCAL_RANK": environ.get("LOCAL_RANK", environ["RANK"]),
            "LOCAL_WORLD_SIZE": environ.get("LOCAL_WORLD_SIZE", size),
            "GROUP_WORLD_SIZE": environ.get("GROUP_WORLD_SIZE", "1"),
        }
        if all(value.isascii() and value.isdigit() for value in variables.values()):
            position = cls(*map(int, variables.values()))
            if position.rank < position.size:
                return position if position.size > 1 else cls()
        assignments = " ".join(f"{name}={value!r}" for name, value in variables.items())
        raise SettingsError(
            f"torchrun never sets {assignments}; unset these variables, or use torchrun"
        )

    @property
    def command(self) -> str:
        """The command that starts toxbench on the same number of processes."""
        if self.size == 1:
            return "toxbench"
        machines = f"--nnodes {self.machines} ... " if self.machines > 1 else ""
        # Not "-m toxbench": that imports from the current folder before anything else.
        return f"torchrun {machines}--nproc-per-node {self.local_size} --no-python toxbench"

    def describe_rank(self, rank: int) -> str:
        """Describe one of the processes for a message, such as ``process 2 of 4 (rank 1)``."""
        return f"process {rank + 1} of {self.size} (rank {rank})"


NOT_DISTRIBUTED = TorchrunEnv()


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
