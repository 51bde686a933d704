"""The state of a training on the disk, from which it goes on to the same bytes."""

import hashlib
import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import torch

from toxbench.atomic import atomic_file
from toxbench.training.interruption import Asked
from toxbench.training.weights import of_the_disk

State = dict[str, Any]  # tensors, numbers, texts, lists and dicts of them
_HASH_BYTES = 32


class Checkpoints(Protocol):
    """Where a training keeps its state, and hears that it is to stop."""

    def load(self) -> State | None:
        """Return the state to go on from; None: begin."""

    def is_due(self) -> bool:
        """Whether enough time has gone by to save."""

    def is_asked(self) -> bool:
        """Whether to save and stop."""

    def save(self, state: State) -> None:
        """Keep a state in place of the one before."""


@dataclass(frozen=True)
class Keeping:
    """Where the states of trainings are kept, and how often.

    Attributes:
        folder: one file for each training that is not over.
        seconds: of training between two states.
    """

    folder: Path
    seconds: float

    def path(self, stem: str) -> Path:
        """Where the state of a cell is, or would be."""
        return self.folder / f"{stem}.checkpoint"

    def forget(self, stem: str) -> None:
        """Remove the state of a cell; without one, do nothing."""
        self.path(stem).unlink(missing_ok=True)


class NoCheckpoints:
    """Keeps nothing, and is never asked."""

    def load(self) -> State | None:
        """Begin."""
        return None

    def is_due(self) -> bool:
        """Never."""
        return False

    def is_asked(self) -> bool:
        """Never."""
        return False

    def save(self, state: State) -> None:
        """Keep nothing."""


class FileCheckpoints:
    """One file, there whole or not at all; what is not exactly this training's is not used."""

    def __init__(
        self, path: Path, seconds: float, identity: Mapping[str, object], asked: Asked
    ) -> None:
        """Touch nothing yet.

        Args:
            path: of the file.
            seconds: between two states.
            identity: all that decides the bytes of the training's results, as JSON.
            asked: whether to stop.
        """
        self._path = path
        self._seconds = seconds
        self._identity = json.dumps(identity, sort_keys=True).encode("ascii")
        self._saved = time.monotonic()
        self.is_asked = asked

    def load(self) -> State | None:
        """Return the state to go on from; None: there is none, it is damaged, or another's."""
        if not self._path.is_file():
            return None
        data = self._path.read_bytes()
        content, written = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
        if hashlib.sha256(content).digest() != written:
            return None
        identity, _, tensors = content.partition(b"\n")
        if identity != self._identity:
            return None
        # No pickle: weights_only reads tensors and plain values, and refuses everything else.
        state: State = torch.load(io.BytesIO(tensors), map_location="cpu", weights_only=True)
        return state

    def is_due(self) -> bool:
        """Whether it is so long since the last one, or since the beginning."""
        return time.monotonic() - self._saved >= self._seconds

    def save(self, state: State) -> None:
        """Write a state.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        with atomic_file(self._path) as file:
            hashed = _Hashed(file)
            hashed.write(self._identity + b"\n")
            try:
                torch.save(state, cast(IO[bytes], hashed))
            except RuntimeError as error:  # torch's words for a disk that takes no more
                raise of_the_disk(error) from error
            file.write(hashed.digest.digest())
        self._saved = time.monotonic()


class _Hashed(io.RawIOBase):
    """Writes to a file, and hashes what goes by."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        written: int = self._file.write(data)
        return written
