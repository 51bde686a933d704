"""One training as far as it has come: what it goes by, and all that is needed to go on with it."""

import json
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from toxbench.records import EpochRecord
from toxbench.training.dataloader import Batch
from toxbench.training.device import Device, random_state, set_random_state
from toxbench.training.fast_dropout import PooledDropout
from toxbench.training.process_group import ProcessGroup, Replica
from toxbench.util.arrays import Rows
from toxbench.util.atomic import atomic_file
from toxbench.util.signals import ShouldStop

PER_RANK_KEYS = ("random", "dropout", "total")  # what differs between processes of one training
State = dict[str, Any]  # tensors, numbers, texts, lists and dicts of them


class Checkpoints(Protocol):
    """Where a training keeps its state, and hears that it is to stop."""

    def load(self) -> State | None:
        """Return the state to go on from; None: begin."""

    def is_due(self) -> bool:
        """Whether enough time has gone by to save."""

    def should_stop(self) -> bool:
        """Whether to save and stop."""

    def save(self, state: State) -> None:
        """Keep a state in place of the one before."""


@dataclass(frozen=True)
class CheckpointConfig:
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

    def delete(self, stem: str) -> None:
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

    def should_stop(self) -> bool:
        """Never."""
        return False

    def save(self, state: State) -> None:
        """Keep nothing."""


class FileCheckpoints:
    """One file, there whole or not at all; what is not exactly this training's is not used."""

    def __init__(
        self, path: Path, seconds: float, identity: Mapping[str, object], should_stop: ShouldStop
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
        self.should_stop = should_stop

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

    def __init__(self, group: ProcessGroup, own: FileCheckpoints) -> None:
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
        return self._group.broadcast_flag(self._own.is_due())

    def should_stop(self) -> bool:
        """Whether a process is asked to stop."""
        return self._group.any(self._own.should_stop())

    def save(self, state: State) -> None:
        """Keep the state; raises as `FileCheckpoints.save` in the first process."""
        each = self._group.gathered({name: state[name] for name in PER_RANK_KEYS})
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


Weights = dict[str, torch.Tensor]
Dropout = PooledDropout | nullcontext[None]
Backward = Callable[[Batch, float], torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """How a training went; the module itself holds the weights of ``best_epoch``."""

    epochs: tuple[EpochRecord, ...]
    best_epoch: int
    train_seconds: float


@dataclass(eq=False)
class TrainingState:
    """A training.

    Attributes:
        replica: of the module, as this process computes with it.
        rows: to train on.
        chooses: among the weights of all looks; else the last ones are kept.
        steps_an_epoch: steps of the optimizer in one pass over them.
        steps: in all.
        steps_a_look: from one look at the validation rows to the next.
        rng: draws the batches of each epoch.
        backward: adds a batch's gradients, times a weight, to the parameters' own; returns its
            loss, detached.
        dropout: entered for each forward pass.
        total: loss since the last look, summed over comments; on the device, because reading it
            each step would make the host wait for each step.
        comments: trained on since the last look.
        seconds: of training since the last look.
        step: steps done.
        records: one for each look.
        kept: which of them the weights to keep are of, counted from 1; 0: none yet.
        weights: those, where they are not the module's own.
    """

    module: nn.Module
    replica: Replica
    device: Device
    rows: Rows
    chooses: bool
    steps_an_epoch: int
    steps: int
    eval_every: int
    rng: np.random.Generator
    backward: Backward
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    dropout: Dropout
    total: torch.Tensor
    comments: int = 0
    seconds: float = 0.0
    step: int = 0
    records: list[EpochRecord] = field(default_factory=list)
    kept: int = 0
    weights: Weights | None = None
    _epoch_began: Mapping[str, Any] = field(default_factory=dict)

    @property
    def next_eval_step(self) -> int:
        """After how many steps the validation rows are looked at next."""
        return min(self.steps, (len(self.records) + 1) * self.eval_every)

    @property
    def is_done(self) -> bool:
        """Whether the last look has been taken."""
        return len(self.records) * self.eval_every >= self.steps

    def begin_epoch(self) -> None:
        """Note how the batches of the epoch are drawn, so that they can be drawn again."""
        self._epoch_began = dict(self.rng.bit_generator.state)

    def record_evaluation(self, record: EpochRecord, is_wanted: bool) -> None:
        """Note a look at the validation rows; keep the weights as they are now, if wanted."""
        self.records.append(record)
        self.total = torch.zeros_like(self.total)
        self.comments, self.seconds = 0, 0.0
        if is_wanted:
            self.kept = len(self.records)
            others_follow = self.chooses and not self.is_done
            self.weights = _copy(self.module) if others_follow else None

    def finish(self) -> Trained:
        """Give the module the weights that were kept, and say how the training went."""
        if self.weights is not None:
            self.module.load_state_dict(self.weights)
        seconds = sum(record.seconds for record in self.records)
        return Trained(tuple(self.records), self.kept, seconds)

    def state(self) -> State:
        """Return everything that going on depends on; tensors are not copied."""
        # After the last step of an epoch the generator is where the next one begins.
        between = self.step % self.steps_an_epoch == 0
        began = self.rng.bit_generator.state if between else self._epoch_began
        return {
            "step": self.step,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": random_state(self.device),
            "batches": json.dumps(began),
            "dropout": self.dropout.state() if isinstance(self.dropout, PooledDropout) else None,
            "total": self.total,
            "comments": self.comments,
            "seconds": self.seconds,
            "records": [record.model_dump_json() for record in self.records],
            "kept": self.kept,
            "weights": self.weights,
        }

    def restore(self, state: State) -> None:
        """Go on from what `state` returned; tensors are moved to the device."""
        self.step = state["step"]
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        set_random_state(self.device, state["random"])
        self.rng.bit_generator.state = self._epoch_began = json.loads(state["batches"])
        if isinstance(self.dropout, PooledDropout):
            self.dropout.restore(state["dropout"])
        self.total = state["total"].to(self.device.torch)
        self.comments, self.seconds = state["comments"], state["seconds"]
        self.records = [EpochRecord.model_validate_json(text) for text in state["records"]]
        self.kept, self.weights = state["kept"], state["weights"]


def _copy(module: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
