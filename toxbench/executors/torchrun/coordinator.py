"""Messages between the processes of torchrun outside of collective operations, in its store.

A collective operation waits for every process, and fails or hangs if one is gone. Published
messages assign work and announce which process left and why; reading them never blocks.
"""

import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from toxbench.errors import ProcessLostError
from toxbench.util.processes import TorchrunEnv

_POLL_SECONDS = 0.02
_CHECK_SECONDS = 0.5  # between two checks whether a process is gone
_HANG_SECONDS = 5.0  # that a process may stay in a collective operation after another one is gone

END = "end"  # key of the exit code of rank 0; then the other ranks may leave
LOST_PEER = "lost another process"
# Reasons of a process that leaves because it was asked to, or because another one is gone.
SECONDARY_REASONS = ("was interrupted", "was terminated", LOST_PEER)
OnFatal = Callable[[ProcessLostError], None]


class Coordinator:
    """Short messages under keys that every process can read."""

    def __init__(self, env: TorchrunEnv, store: Store, on_fatal: OnFatal) -> None:
        """Publish that this process exists.

        Args:
            env: of this process.
            store: of torchrun, with no keys of an earlier start.
            on_fatal: called before this process exits because it hangs.
        """
        self.env = env
        self.store = store
        self._has_left = False
        copy: Any = store
        # Has its own connection, because this one blocks while it waits.
        self._monitor = PeerMonitor(env, copy.clone(), on_fatal)
        self.publish(f"process/{env.rank}", f"{_host_and_parent()} {os.getpid()}")

    @classmethod
    def join(cls, env: TorchrunEnv, environ: Mapping[str, str], on_fatal: OnFatal) -> "Coordinator":
        """Connect to torchrun's store.

        Raises:
            ProcessLostError: it does not answer.
        """
        with _store_errors():
            untyped_dist: Any = dist
            store, _, _ = next(iter(untyped_dist.rendezvous("env://", env.rank, env.size)))
            start = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            return cls(env, PrefixStore(f"toxbench {start}", store), on_fatal)

    def publish(self, key: str, message: str) -> None:
        """Write a message for all; raises `ProcessLostError` if the store is gone."""
        with _store_errors():
            self.store.set(key, message)

    def leave(self, reason: str) -> None:
        """Publish why this process leaves, "" for a normal end; only the first reason counts."""
        if not self._has_left:
            self._has_left = True
            self.publish(f"left/{self.env.rank}", reason)

    def wait_for_peers(self, timeout: float) -> None:
        """Wait until all other processes have left, ``timeout`` seconds at most."""
        end = time.monotonic() + timeout
        peers = set(range(self.env.size)) - {self.env.rank}
        while time.monotonic() < end and any(_read(self.store, f"left/{p}") is None for p in peers):
            time.sleep(_POLL_SECONDS)

    def wait(self, *keys: str, timeout: float = math.inf) -> str | None:
        """Wait for the first message under one of the keys, while all processes exist.

        Unlike a collective operation, this can be interrupted by signals. Returns None after
        ``timeout`` seconds.

        Raises:
            ProcessLostError: a process is gone.
        """
        start = checked = time.monotonic()
        while True:
            for key in keys:
                message = _read(self.store, key)
                if message is not None:
                    return message
            now = time.monotonic()
            if now - start > timeout:
                return None
            if now - checked > _CHECK_SECONDS:
                checked = now
                lost = self.lost_peer()
                if lost is not None:
                    raise lost
            time.sleep(_POLL_SECONDS)

    def lost_peer(self) -> ProcessLostError | None:
        """Return the error of a process that is gone or left early, if there is one."""
        return self._monitor.lost_peer(self.store)

    def guarded(self) -> AbstractContextManager[None]:
        """Enter around collective operations, in which this process may hang."""
        return self._monitor.guarded()


class PeerMonitor:
    """Ends this process if it hangs in a collective operation, where it handles no signal."""

    def __init__(self, env: TorchrunEnv, store: Store, on_fatal: OnFatal) -> None:
        self._env = env
        self._store = store
        self._on_fatal = on_fatal
        self._host_and_parent = _host_and_parent()
        self._peers: dict[int, tuple[str, int]] = {}

    def lost_peer(self, store: Store) -> ProcessLostError | None:
        """Return the error of a lost process, preferring the one that failed first."""
        losses: list[tuple[int, ProcessLostError]] = []
        for rank in range(self._env.size):
            if rank != self._env.rank:
                # In this order: a process publishes its reason before it exits.
                is_gone = self._is_gone(store, rank)
                reason = _read(store, f"left/{rank}")
                name = self._env.describe_rank(rank)
                if reason is None and is_gone:
                    losses.append((0, ProcessLostError(f"{name} is gone", rank)))
                elif reason in SECONDARY_REASONS:
                    error = ProcessLostError(f"{name} {reason}", rank, is_secondary=True)
                    losses.append((2, error))
                elif reason:
                    losses.append((1, ProcessLostError(f"{name} {reason}", rank)))
        return min(losses, key=lambda loss: loss[0])[1] if losses else None

    def _is_gone(self, store: Store, rank: int) -> bool:
        """Whether the process does not exist; processes of other machines cannot be checked."""
        if rank not in self._peers:
            message = _read(store, f"process/{rank}")
            if message is None:
                return False
            host_and_parent, _, number = message.rpartition(" ")
            self._peers[rank] = host_and_parent, int(number)
        host_and_parent, pid = self._peers[rank]
        return host_and_parent == self._host_and_parent and not _is_running(pid)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Inside, end this process if it hangs after another one is gone."""
        finished = threading.Event()
        thread = threading.Thread(target=self._guard, args=(finished,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()

    def _guard(self, finished: threading.Event) -> None:
        since: float | None = None
        while not finished.wait(_CHECK_SECONDS):
            try:
                lost = self.lost_peer(self._store)
            except ProcessLostError as error:
                lost = error
            if lost is not None and since is None:
                since = time.monotonic()
            if lost is not None and since is not None and time.monotonic() - since > _HANG_SECONDS:
                self._on_fatal(lost)
                os._exit(lost.exit_code)


def _read(store: Store, key: str) -> str | None:
    with _store_errors():
        return store.get(key).decode() if store.check([key]) else None


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch.distributed's errors are RuntimeErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ProcessLostError(f"torchrun's store does not answer: {reason}", None) from error


def _host_and_parent() -> str:
    """Identify the torchrun process that started this one: its children can see each other."""
    return f"{socket.gethostname()} {os.getppid()}"


def _is_running(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # `os.kill` would end the process there; the store reports its loss later
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
