"""Child processes that exchange messages with this one and exit when it is gone."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

# The child imports from the same folders as this process. It ignores Ctrl-C and SIGTERM, which may
# reach the whole process group: its parent decides when it exits.
_CHILD_CODE = (
    "import importlib, json, signal, sys; "
    "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "sys.stdout.reconfigure(line_buffering=True); "  # a killed child loses no printed line
    "sys.path[:] = json.loads(sys.argv[1]); "
    "importlib.import_module(sys.argv[2]).main(int(sys.argv[3]))"
)


def start_child(
    module: str, environ: Mapping[str, str], output: int = 2, path: Sequence[str] = ()
) -> tuple["subprocess.Popen[bytes]", Connection]:
    """Start ``main(descriptor)`` of a module; return the process and a connection to it.

    Args:
        module: to import in the child.
        environ: environment variables of the process.
        output: file descriptor for stdout and stderr of the child; by default the stderr of this
            process, because stdout is for results only.
        path: additional folders to import from.
    """
    folders = [*sys.path, *(folder for folder in path if folder not in sys.path)]
    parent_socket, child_socket = socket.socketpair()
    command = [sys.executable, "-c", _CHILD_CODE, json.dumps(folders), module]
    with child_socket:
        process = subprocess.Popen(
            [*command, str(child_socket.fileno())],
            stdin=subprocess.PIPE,  # closes when this process is gone; see `exit_with_parent`
            stdout=output,
            stderr=output,
            pass_fds=[child_socket.fileno()],
            env=dict(environ),
        )
    return process, Connection(parent_socket.detach())


def end_child(process: "subprocess.Popen[bytes]", connection: Connection) -> None:
    """Kill a child; a second call does nothing."""
    connection.close()
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def exit_with_parent(grace: float = 0) -> None:
    """Exit when the process that started this one is gone, even if it was killed.

    This process may exit by itself within ``grace`` seconds.
    """

    def wait() -> None:
        sys.stdin.buffer.read()
        threading.Event().wait(grace)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
