"""Child processes that exchange messages with this one, and processes that torchrun starts."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from toxbench.errors import SettingsError

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
