"""Child processes that exchange messages with this one and exit when it is gone."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

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
