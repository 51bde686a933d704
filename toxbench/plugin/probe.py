"""The first import of each plugin of another distribution, in a process of its own.

An import may crash, exit or hang, and with it the process. Therefore the main process imports only
plugins that a child process has imported before.
"""

import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import EntryPoint
from multiprocessing.connection import Connection

from toxbench.util.spawn import describe_exit, end_child, exit_with_parent, start_child

SECONDS = 60.0  # for all plugins, which are imported at the same time


def unusable_plugins(entries: Iterable[EntryPoint]) -> list[tuple[EntryPoint, str]]:
    """Return the plugins that end their process or exceed the time limit, each with the reason.

    Plugins that raise an exception are not among them: an exception does no harm.
    """
    deadline = time.monotonic() + SECONDS
    with ExitStack() as running:
        children = []
        for entry in entries:
            child = start_child("toxbench.plugin.probe", os.environ, subprocess.DEVNULL)
            running.callback(end_child, *child)
            child[1].send((entry.name, entry.value, entry.group))
            children.append((entry, child))
        reasons = [(entry, _reason(*child, deadline)) for entry, child in children]
    return [(entry, reason) for entry, reason in reasons if reason]


def _reason(process: "subprocess.Popen[bytes]", connection: Connection, deadline: float) -> str:
    """Wait for one plugin; return "" if it was imported."""
    try:
        if not connection.poll(max(0.0, deadline - time.monotonic())):
            return f"its import took more than {SECONDS:.0f} s"
        connection.recv()
    except (EOFError, ConnectionResetError):
        return f"its import did not return: {describe_exit(process)}"
    return ""


def main(descriptor: int) -> None:
    """Import a plugin and collect its items, as the main process does; then send None."""
    from toxbench.plugin.registry import Registry

    exit_with_parent()
    with Connection(descriptor) as connection:
        Registry([EntryPoint(*connection.recv())])
        connection.send(None)
