"""Processes that this one starts, sends plain values to, and outlives."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

# The child imports what this process would, wherever it was started from. Ctrl-C and SIGTERM may
# reach the whole group; what becomes of a child is for the process that started it to say.
_START = (
    "import importlib, json, signal, sys; "
    "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "sys.stdout.reconfigure(line_buffering=True); "  # what was printed is out when it is killed
    "sys.path[:] = json.loads(sys.argv[1]); "
    "importlib.import_module(sys.argv[2]).main(int(sys.argv[3]))"
)


def start_child(
    module: str, environ: Mapping[str, str], output: int = 2, path: Sequence[str] = ()
) -> tuple["subprocess.Popen[bytes]", Connection]:
    """Start ``main(descriptor)`` of a module; return the process and our end of the socket.

    Args:
        module: to import there.
        environ: of the process.
        path: further folders that it imports from.
        output: file descriptor for whatever it prints; what a plugin prints is no result of ours.
    """
    folders = [*sys.path, *(folder for folder in path if folder not in sys.path)]
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(folders), module, str(theirs.fileno())],
            stdin=subprocess.PIPE,  # its end tells the child that this process is gone
            stdout=output,
            stderr=output,
            pass_fds=[theirs.fileno()],
            env=dict(environ),
        )
    return process, Connection(ours.detach())


def end_child(process: "subprocess.Popen[bytes]", connection: Connection) -> None:
    """End a child at once; a second time does nothing."""
    connection.close()
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def leave_with_parent(grace: float = 0) -> None:
    """End this process when the one that started it is gone, even if it was killed.

    Args:
        grace: seconds after which it ends, if it has not left by itself.
    """

    def wait() -> None:
        sys.stdin.buffer.read()
        threading.Event().wait(grace)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
