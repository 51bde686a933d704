"""Starts the child processes of toxbench and torchrun as forks that have imported torch.

They are real processes, which can be killed, and children of the process that starts them; only
the seconds of their imports are saved. Linux only; elsewhere children start as usual.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

# What commands and their children import.
MODULES = (
    "alembic.config",
    "matplotlib.backends.backend_svg",
    "optuna.storages._rdb.storage",
    "optuna.visualization.matplotlib",
    "toxbench.benchmark.run",
    "toxbench.benchmark.tracking",
    "toxbench.cli.main",
    "toxbench.cli.output",
    "toxbench.data.audit",
    "toxbench.executors.worker",
    "toxbench.ranking.predictions",
    "toxbench.report.html.page",
    "toxbench.tuning.tune",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
)
_SET_CHILD_SUBREAPER = 36
_REQUEST_BYTES = 1_000_000  # environment and import folders of a child


def patch_children(connect: Callable[[], socket.socket]) -> type[subprocess.Popen[bytes]]:
    """Make `toxbench.util.processes` start forks in this process; return their class.

    ``connect`` returns the socket of a server that runs `serve`; it is called once if needed.
    """
    from toxbench.util import processes

    class Child(_ForkedChild):
        server = _Lazy(connect)

    stand_in: Any = SimpleNamespace(Popen=Child, PIPE=subprocess.PIPE)
    processes.subprocess = stand_in
    return Child


def fork_server() -> socket.socket:
    """Fork a server of this process, which must have one thread only; return its socket."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        serve(its)
        os._exit(0)
    its.close()
    return ours


@contextmanager
def start_server() -> Iterator[socket.socket]:
    """Start a server in a new interpreter; yield its socket."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(its.fileno())]
    with subprocess.Popen(command, pass_fds=[its.fileno()]), ours:
        its.close()
        yield ours


class _Lazy:
    """A socket that is opened at the first request."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._socket: socket.socket | None = None

    def request(self, descriptors: list[int], **content: Any) -> int:
        """Return the id of a new child of this process."""
        self._socket = self._socket or self._connect()
        _adopt_orphans(True)
        try:
            socket.send_fds(self._socket, [json.dumps(content).encode()], descriptors)
            return int(self._socket.recv(100))
        finally:
            _adopt_orphans(False)


class _ForkedChild(subprocess.Popen[bytes]):
    """A child whose arguments are an interpreter, its options, and the arguments of the program.

    The last option is ``-c``, which code follows, or ``-m``, which the name of a module follows.
    """

    server: _Lazy

    def _execute_child(self, args: Any, *options: Any) -> None:
        pass_fds, environment, new_session = options[3], options[5], options[20]
        pipes = options[9:15]  # both ends of the pipes of stdin, stdout and stderr; -1: inherited
        standard = [n if end == -1 else end for n, end in enumerate(pipes[at] for at in (0, 3, 5))]
        at = next(n for n, word in enumerate(args) if word in ("-c", "-m"))
        self.pid = self.server.request(
            [*standard, *pass_fds], option=args[at], program=args[at + 1],
            arguments=list(args[at + 2 :]), environment=dict(environment), cwd=os.getcwd(),
            new_session=new_session,
        )  # fmt: skip
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def serve(requests: socket.socket) -> None:
    """Fork a child for each request; end when the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 10)
        if not message:
            return
        read_end, write_end = os.pipe()
        middle = os.fork()
        if not middle:
            middle_pid = os.getpid()
            pid = os.fork()
            if pid:
                os.write(write_end, str(pid).encode())
                os._exit(0)  # its child becomes one of the process that adopts orphans
            while os.getppid() == middle_pid:
                time.sleep(0.001)
            requests.close()
            _run(descriptors, **json.loads(message))
        os.waitpid(middle, 0)
        requests.send(os.read(read_end, 100))
        for descriptor in (read_end, write_end, *descriptors):
            os.close(descriptor)


def _run(
    descriptors: list[int],
    option: str,
    program: str,
    arguments: list[str],
    environment: dict[str, str],
    cwd: str,
    new_session: bool,
) -> None:
    """Run a program as an interpreter does, and end this process.

    A fourth descriptor has another number here, which becomes the last argument.
    """
    status = 1
    try:
        if new_session:
            os.setsid()
        for number in range(3):
            os.dup2(descriptors[number], number)
        if descriptors[3:]:
            arguments[-1] = str(os.dup2(descriptors[3], 3))
        os.closerange(3 + len(descriptors[3:]), os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        _set_threads(environment.get("OMP_NUM_THREADS"))
        sys.argv = [option, *arguments]
        if option == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, {"__name__": "__main__"})  # noqa: S102 - as an interpreter does
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _set_threads(number: str | None) -> None:
    """Use the number of threads that torch would have read when it was imported."""
    import torch

    if number is not None:
        torch.set_num_threads(int(number))


def _adopt_orphans(adopt: bool) -> None:
    """Make orphaned descendants children of this process."""
    import ctypes

    assert ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0) == 0


def import_modules() -> None:
    """Import what commands and their children need, and compute nothing."""
    for name in MODULES:
        importlib.import_module(name)


if __name__ == "__main__":
    import_modules()
    serve(socket.socket(fileno=int(sys.argv[1])))
