"""The state of a training, and the checkpoints from which an interrupted training resumes."""

import json
import time
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from toxbench.records import EpochRecord
from toxbench.training.device import Device, random_state, set_random_state
from toxbench.training.fast_dropout import PooledDropout
from toxbench.training.losses import Loss
from toxbench.training.process_group import SINGLE_PROCESS, ProcessGroup
from toxbench.util.arrays import Rows
from toxbench.util.atomic import atomic_file
from toxbench.util.processes import ShouldStop

_PER_RANK_KEYS = ("torch_rng", "dropout", "loss_sum")  # these differ between processes
StateDict = dict[str, Any]  # tensors, numbers, texts, and lists and dicts of them
Dropout = PooledDropout | nullcontext[None]


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training; the module has the weights of the last epoch."""

    epochs: tuple[EpochRecord, ...]
    train_seconds: float


@dataclass(eq=False)
class TrainingState:
    """The state of a training.

    Attributes:
        module: module that is trained.
        replica: the module in this process: ids and mask ``[batch, token]`` to float32 logits
            ``[batch, label]``.
        device: device and precision.
        rows: indices of the train rows.
        steps_per_epoch: optimizer steps in one pass over the train rows.
        total_steps: optimizer steps of the whole training.
        eval_interval: optimizer steps between two evaluations on validation rows.
        rng: draws the batches of each epoch.
        loss: of logits and float targets.
        optimizer: of the module's parameters.
        scheduler: of the learning rate.
        dropout: context of each forward pass.
        loss_sum: loss since the last evaluation, summed over comments. It stays on the device,
            because reading it at each step would make the host wait at each step.
        comments: number of comments trained on since the last evaluation.
        seconds: time of training since the last evaluation.
        head_seconds: time that the start of the head took.
        step: number of completed optimizer steps.
        evaluations: one record for each evaluation.
    """

    module: nn.Module
    replica: nn.Module
    device: Device
    rows: Rows
    steps_per_epoch: int
    total_steps: int
    eval_interval: int
    rng: np.random.Generator
    loss: Loss
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    dropout: Dropout
    loss_sum: torch.Tensor
    comments: int = 0
    seconds: float = 0.0
    head_seconds: float = 0.0
    step: int = 0
    evaluations: list[EpochRecord] = field(default_factory=list)
    _epoch_rng_state: Mapping[str, Any] = field(default_factory=dict)

    @property
    def next_eval_step(self) -> int:
        """Number of completed steps at which the next evaluation takes place."""
        return min(self.total_steps, (len(self.evaluations) + 1) * self.eval_interval)

    @property
    def is_done(self) -> bool:
        """Whether the last evaluation has taken place."""
        return len(self.evaluations) * self.eval_interval >= self.total_steps

    def begin_epoch(self) -> None:
        """Record the generator's state, from which the epoch's batches can be drawn again."""
        self._epoch_rng_state = dict(self.rng.bit_generator.state)

    def record_evaluation(self, record: EpochRecord) -> None:
        """Add an evaluation on validation rows."""
        self.evaluations.append(record)
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.comments, self.seconds = 0, 0.0

    def result(self) -> TrainingResult:
        """Return the result of the training so far."""
        seconds = self.head_seconds + sum(record.seconds for record in self.evaluations)
        return TrainingResult(tuple(self.evaluations), seconds)

    def state_dict(self) -> StateDict:
        """Return everything that is needed to resume; tensors are not copied."""
        # After the last step of an epoch, the generator has the state at the start of the next one.
        is_between_epochs = self.step % self.steps_per_epoch == 0
        rng_state = self.rng.bit_generator.state if is_between_epochs else self._epoch_rng_state
        dropout = self.dropout.state_dict() if isinstance(self.dropout, PooledDropout) else None
        return {
            "step": self.step,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "torch_rng": random_state(self.device),
            "epoch_rng": json.dumps(rng_state),
            "dropout": dropout,
            "loss_sum": self.loss_sum,
            "comments": self.comments,
            "seconds": self.seconds,
            "head_seconds": self.head_seconds,
            "evaluations": [record.model_dump_json() for record in self.evaluations],
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore what `state_dict` returned; tensors are moved to the device."""
        self.step = state["step"]
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        set_random_state(self.device, state["torch_rng"])
        self.rng.bit_generator.state = self._epoch_rng_state = json.loads(state["epoch_rng"])
        if isinstance(self.dropout, PooledDropout):
            self.dropout.load_state_dict(state["dropout"])
        self.loss_sum = state["loss_sum"].to(self.device.torch)
        self.comments, self.seconds = state["comments"], state["seconds"]
        self.head_seconds = state["head_seconds"]
        self.evaluations = [EpochRecord.model_validate_json(r) for r in state["evaluations"]]


class Checkpoints:
    """Stores the state of a training, and knows when to save and when to stop.

    This class stores no state and never stops.
    """

    def load(self) -> StateDict | None:
        """Return the state to resume from; None: start from the beginning."""
        return None

    def is_due(self) -> bool:
        """Whether the last save is long enough ago to save again."""
        return False

    def should_stop(self) -> bool:
        """Whether to save and stop."""
        return False

    def save(self, state: StateDict) -> None:
        """Replace the stored state."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Folder of the checkpoints and the time between them.

    Attributes:
        folder: one file for each unfinished training.
        interval_seconds: time of training between two checkpoints.
    """

    folder: Path
    interval_seconds: float

    def path(self, stem: str) -> Path:
        """Return the path of a cell's checkpoint, which need not exist."""
        return self.folder / f"{stem}.checkpoint"

    def delete(self, stem: str) -> None:
        """Remove the checkpoint of a cell, if it exists."""
        self.path(stem).unlink(missing_ok=True)


class FileCheckpoints(Checkpoints):
    """Stores the state in one file, which is written atomically.

    In a process group, the first process stores the state of all processes.
    """

    def __init__(
        self,
        path: Path,
        interval_seconds: float,
        identity: Mapping[str, object],
        should_stop: ShouldStop,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """Prepare to store; the file is not touched yet.

        Args:
            path: file of the checkpoint.
            interval_seconds: time between two checkpoints.
            identity: everything that determines the bytes of the training's results, as JSON. A
                checkpoint with another identity is ignored.
            should_stop: whether to stop; a stop requested in any process counts.
            group: all of its processes must call the same methods at the same steps.
        """
        self._path = path
        self._interval_seconds = interval_seconds
        self._identity = json.dumps(identity, sort_keys=True)
        self._should_stop = should_stop
        self._group = group
        self._last_save = time.monotonic()

    def load(self) -> StateDict | None:
        """Return this process's state; None without an intact file of this training."""
        state: StateDict | None = self._group.of_the_first(self._read)
        return None if state is None else state | state["per_rank"][self._group.rank]

    def is_due(self) -> bool:
        """Whether the interval since the last save has passed in the first process."""
        seconds = time.monotonic() - self._last_save
        return self._group.broadcast_flag(seconds >= self._interval_seconds)

    def should_stop(self) -> bool:
        """Whether any process should stop."""
        return self._group.any(self._should_stop())

    def save(self, state: StateDict) -> None:
        """Write the state.

        Raises:
            StorageError: in the first process: the disk is full or the folder cannot be written.
        """
        per_rank = self._group.gathered({name: state[name] for name in _PER_RANK_KEYS})
        if self._group.rank == 0:
            self._write(state | {"per_rank": per_rank})

    def _read(self) -> StateDict | None:
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                identity, structure = json.loads(arrays["structure"].tobytes())
                if identity != self._identity:
                    return None
                state: StateDict = _unflatten(structure, arrays)  # each array has a checksum
                return state
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def _write(self, state: StateDict) -> None:
        arrays: dict[str, npt.NDArray[Any]] = {}
        content = json.dumps([self._identity, _flatten(state, arrays)])
        arrays["structure"] = np.frombuffer(content.encode("utf-8"), dtype=np.uint8)
        with atomic_file(self._path) as file:
            np.savez(cast(Any, file), allow_pickle=False, **arrays)
        self._last_save = time.monotonic()


def _flatten(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Return a value as JSON, with its tensors moved to ``arrays``."""
    if isinstance(value, torch.Tensor):
        name, tensor = f"tensor{len(arrays)}", value.detach().cpu()
        # numpy has no bfloat16
        arrays[name] = (tensor.view(torch.int16) if _is_bf16(tensor) else tensor).numpy()
        return {"tensor": name, "bf16": _is_bf16(tensor)}
    if isinstance(value, Mapping):
        return {"items": [[key, _flatten(inner, arrays)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return [_flatten(inner, arrays) for inner in value]
    return value


def _unflatten(structure: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Return the value that was passed to `_flatten`; tuples have become lists."""
    if isinstance(structure, list):
        return [_unflatten(inner, arrays) for inner in structure]
    if not isinstance(structure, dict):
        return structure
    if "items" in structure:
        return {key: _unflatten(inner, arrays) for key, inner in structure["items"]}
    tensor = torch.from_numpy(arrays[structure["tensor"]])
    return tensor.view(torch.bfloat16) if structure["bf16"] else tensor


def _is_bf16(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.bfloat16
