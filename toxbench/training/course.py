"""One training as far as it has come: what it goes by, and all that is needed to go on with it."""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from toxbench.data.protocol import Rows
from toxbench.records import EpochRecord
from toxbench.training.batching import Batch
from toxbench.training.checkpoint import State
from toxbench.training.device import Device, random_state, set_random_state
from toxbench.training.distributed import Replica
from toxbench.training.dropout import CheapDropout

Weights = dict[str, torch.Tensor]
Dropout = CheapDropout | nullcontext[None]
Backward = Callable[[Batch, float], torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """How a training went; the module itself holds the weights of ``best_epoch``."""

    epochs: tuple[EpochRecord, ...]
    best_epoch: int
    train_seconds: float


@dataclass(eq=False)
class Course:
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
    steps_a_look: int
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
    def next_look(self) -> int:
        """After how many steps the validation rows are looked at next."""
        return min(self.steps, (len(self.records) + 1) * self.steps_a_look)

    @property
    def is_done(self) -> bool:
        """Whether the last look has been taken."""
        return len(self.records) * self.steps_a_look >= self.steps

    def begin_epoch(self) -> None:
        """Note how the batches of the epoch are drawn, so that they can be drawn again."""
        self._epoch_began = dict(self.rng.bit_generator.state)

    def look(self, record: EpochRecord, is_wanted: bool) -> None:
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
            "dropout": self.dropout.state() if isinstance(self.dropout, CheapDropout) else None,
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
        if isinstance(self.dropout, CheapDropout):
            self.dropout.restore(state["dropout"])
        self.total = state["total"].to(self.device.torch)
        self.comments, self.seconds = state["comments"], state["seconds"]
        self.records = [EpochRecord.model_validate_json(text) for text in state["records"]]
        self.kept, self.weights = state["kept"], state["weights"]


def _copy(module: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
