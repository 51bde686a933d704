"""What the processes of one run tell each other beside their collectives, in torchrun's store.

A collective waits for everybody, and where one process is gone it fails or waits for ever. Words on
this board say who does what, who has left and why, and cost nobody a wait.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from toxbench.errors import ProcessLostError
from toxbench.util.torchrun import TorchrunEnv

_PAUSE = 0.02  # seconds between two looks
_CHECK = 0.5  # seconds between two looks at who is gone
_STUCK = 5.0  # seconds that a process may hang in a collective, after another one is gone

END = "end"  # where the first process lets the others leave
LOST = "has lost another one"
# What a process says that leaves because it was asked to, or because another one is gone.
FOLLOWED = ("was interrupted", "was terminated", LOST)
OnFatal = Callable[[ProcessLostError], None]


class Coordinator:
    """Short words under names that every process can read."""

    def __init__(self, place: TorchrunEnv, store: Store, last_words: OnFatal) -> None:
        """Say that this process is here.

        Args:
            place: of this process.
            store: where torchrun's processes meet; nothing else of this start is in it.
            last_words: called before this process ends itself, because it hangs.
        """
        self.place = place
        self.store = store
        self._has_left = False
        copy: Any = store
        # A connection of its own: the other one is waited on.
        self._watch = PeerMonitor(place, copy.clone(), last_words)
        self.publish(f"here/{place.rank}", f"{_nest()} {os.getpid()}")

    @classmethod
    def join(
        cls, place: TorchrunEnv, environ: Mapping[str, str], last_words: OnFatal
    ) -> "Coordinator":
        """Find torchrun's store.

        Raises:
            ProcessLostError: it does not answer.
        """
        with _answering():
            ways: Any = dist
            store, _, _ = next(iter(ways.rendezvous("env://", place.rank, place.size)))
            start = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            return cls(place, PrefixStore(f"toxbench {start}", store), last_words)

    def publish(self, name: str, word: str) -> None:
        """Write a word for all; raises `ProcessLostError` where the store is gone."""
        with _answering():
            self.store.set(name, word)

    def leave(self, word: str) -> None:
        """Say why this process leaves, empty for in order; the first word stands."""
        if not self._has_left:
            self._has_left = True
            self.publish(f"left/{self.place.rank}", word)

    def wait_for_peers(self, patience: float) -> None:
        """Wait until all others have said that they leave, ``patience`` seconds at most."""
        end = time.monotonic() + patience
        others = {f"left/{rank}" for rank in range(self.place.size)} - {f"left/{self.place.rank}"}
        while time.monotonic() < end and any(_read(self.store, name) is None for name in others):
            time.sleep(_PAUSE)

    def wait(self, *names: str, patience: float = math.inf) -> str | None:
        """Wait for the first of some words, as long as all processes are there.

        Signals are heard meanwhile, as they are not in a collective.

        Args:
            names: of the words.
            patience: seconds; after them the answer is None.

        Raises:
            ProcessLostError: a process is gone.
        """
        start = checked = time.monotonic()
        while True:
            for name in names:
                word = _read(self.store, name)
                if word is not None:
                    return word
            now = time.monotonic()
            if now - start > patience:
                return None
            if now - checked > _CHECK:
                checked = now
                lost = self.lost()
                if lost is not None:
                    raise lost
            time.sleep(_PAUSE)

    def lost(self) -> ProcessLostError | None:
        """Say which process is gone, or has left before the end, if one has."""
        return self._watch.lost(self.store)

    def guarded(self) -> AbstractContextManager[None]:
        """Enter where this process may hang in a collective because another one is gone."""
        return self._watch.guarded()


class PeerMonitor:
    """Looks after a thread that may hang in a collective, where it hears no signal."""

    def __init__(self, place: TorchrunEnv, store: Store, last_words: OnFatal) -> None:
        self._place = place
        self._store = store
        self._last_words = last_words
        self._nest = _nest()
        self._others: dict[int, tuple[str, int]] = {}

    def lost(self, store: Store) -> ProcessLostError | None:
        """Say which process is gone: rather the one that began it than those that followed."""
        found: list[tuple[int, ProcessLostError]] = []
        for rank in range(self._place.size):
            if rank != self._place.rank:
                # In this order: who leaves says so before it is gone.
                gone = self._is_gone(store, rank)
                said = _read(store, f"left/{rank}")
                name = self._place.describe_rank(rank)
                if said is None and gone:
                    found.append((0, ProcessLostError(f"{name} is gone", rank)))
                elif said in FOLLOWED:
                    found.append((2, ProcessLostError(f"{name} {said}", rank, is_consequence=True)))
                elif said:
                    found.append((1, ProcessLostError(f"{name} {said}", rank)))
        return min(found, key=lambda one: one[0])[1] if found else None

    def _is_gone(self, store: Store, rank: int) -> bool:
        """Whether there is no such process; those of other machines are not seen from here."""
        if rank not in self._others:
            said = _read(store, f"here/{rank}")
            if said is None:
                return False
            nest, _, pid = said.rpartition(" ")
            self._others[rank] = nest, int(pid)
        nest, number = self._others[rank]
        return nest == self._nest and not _is_running(number)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Inside, end this process where it hangs after another one is gone."""
        left = threading.Event()
        thread = threading.Thread(target=self._guard, args=(left,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()
            thread.join()

    def _guard(self, left: threading.Event) -> None:
        since: float | None = None
        while not left.wait(_CHECK):
            try:
                lost = self.lost(self._store)
            except ProcessLostError as error:
                lost = error
            if lost is not None and since is None:
                since = time.monotonic()
            if lost is not None and since is not None and time.monotonic() - since > _STUCK:
                self._last_words(lost)
                os._exit(lost.exit_code)


def _read(store: Store, name: str) -> str | None:
    with _answering():
        return store.get(name).decode() if store.check([name]) else None


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # also what torch.distributed raises of its own
        raise _no_store(error) from error


def _no_store(error: Exception) -> ProcessLostError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ProcessLostError(f"torchrun's store does not answer: {reason}", None)


def _nest() -> str:
    """Name what started this process: its children see each other."""
    return f"{socket.gethostname()} {os.getppid()}"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
