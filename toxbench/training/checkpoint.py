"""The state of a training on the disk, from which it goes on to the same bytes."""

import json
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from toxbench.atomic import atomic_file
from toxbench.interruption import Asked
from toxbench.training.distributed import Group

OF_A_PROCESS = ("random", "dropout", "total")  # what differs between processes of one training
State = dict[str, Any]  # tensors, numbers, texts, lists and dicts of them


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
        self, path: Path, seconds: float, identity: Mapping[str, object], is_asked: Asked
    ) -> None:
        """Touch nothing yet.

        Args:
            path: of the file.
            seconds: between two states.
            identity: all that decides the bytes of the training's results, as JSON.
            is_asked: whether to stop.
        """
        self._path = path
        self._seconds = seconds
        self._identity = json.dumps(identity, sort_keys=True)
        self._saved = time.monotonic()
        self.is_asked = is_asked

    def load(self) -> State | None:
        """Return the state to go on from; None: there is none, it is damaged, or another's."""
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                identity, outline = json.loads(arrays["outline"].tobytes())
                if identity != self._identity:
                    return None
                state: State = _whole(outline, arrays)  # each array with its checksum
                return state
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def is_due(self) -> bool:
        """Whether it is so long since the last one, or since the beginning."""
        return time.monotonic() - self._saved >= self._seconds

    def save(self, state: State) -> None:
        """Write a state.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        arrays: dict[str, npt.NDArray[Any]] = {}
        outline = json.dumps([self._identity, _outline(state, arrays)])
        arrays["outline"] = np.frombuffer(outline.encode("utf-8"), dtype=np.uint8)
        with atomic_file(self._path) as file:
            np.savez(cast(Any, file), allow_pickle=False, **arrays)
        self._saved = time.monotonic()


class SharedCheckpoints:
    """Those of processes that train together: the first one keeps what each of them needs."""

    def __init__(self, group: Group, own: FileCheckpoints) -> None:
        """Ask nobody yet.

        Args:
            group: of the processes; each has to call the same methods at the same steps.
            own: of the first one; what it is asked concerns each.
        """
        self._group = group
        self._own = own

    def load(self) -> State | None:
        """Return the state to go on from, as the first process finds it."""
        state: State | None = self._group.of_the_first(self._own.load)
        return None if state is None else state | state["processes"][self._group.rank]

    def is_due(self) -> bool:
        """Whether it is time by the first one's clock."""
        return self._group.agree(self._own.is_due())

    def is_asked(self) -> bool:
        """Whether a process is asked to stop."""
        return self._group.any(self._own.is_asked())

    def save(self, state: State) -> None:
        """Keep the state; raises as `FileCheckpoints.save` in the first process."""
        each = self._group.gathered({name: state[name] for name in OF_A_PROCESS})
        if self._group.rank == 0:
            self._own.save(state | {"processes": each})


def _outline(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Return a value as JSON, and put its tensors among the arrays."""
    if isinstance(value, torch.Tensor):
        name, tensor = f"tensor{len(arrays)}", value.detach().cpu()
        # numpy has no bfloat16
        arrays[name] = (tensor.view(torch.int16) if _is_bf16(tensor) else tensor).numpy()
        return {"tensor": name, "bf16": _is_bf16(tensor)}
    if isinstance(value, Mapping):
        return {"items": [[key, _outline(inner, arrays)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return [_outline(inner, arrays) for inner in value]
    return value


def _whole(outline: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Return the value that `_outline` was made of; tuples have become lists."""
    if isinstance(outline, list):
        return [_whole(inner, arrays) for inner in outline]
    if not isinstance(outline, dict):
        return outline
    if "items" in outline:
        return {key: _whole(inner, arrays) for key, inner in outline["items"]}
    tensor = torch.from_numpy(arrays[outline["tensor"]])
    return tensor.view(torch.bfloat16) if outline["bf16"] else tensor


def _is_bf16(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.bfloat16
