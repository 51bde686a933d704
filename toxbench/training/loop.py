"""The one training loop, for every backbone on every device."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from toxbench.data.split import Rows, Split
from toxbench.data.table import Targets
from toxbench.data.tokens import Tokens
from toxbench.errors import CellsFailedError
from toxbench.records import EpochRecord, Scores
from toxbench.settings import TrainSettings
from toxbench.training.batching import Batcher, epoch_batches
from toxbench.training.device import Device, Precision
from toxbench.training.distributed import ALONE, Group, Replica
from toxbench.training.dropout import CheapDropout
from toxbench.training.losses import LOSSES, Loss
from toxbench.training.parameters import parameter_groups, set_dropout
from toxbench.training.predictor import WIDTH_MULTIPLE, Predictor, Probabilities
from toxbench.training.tricks import ALL, Tricks
from toxbench.training.vocabulary import used_rows_only

Validate = Callable[[Targets, Probabilities], Scores]
Keep = Callable[[Scores], bool]


class DivergedError(CellsFailedError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Trained:
    """How a training went; the module itself holds the weights of ``best_epoch``."""

    epochs: tuple[EpochRecord, ...]
    best_epoch: int
    train_seconds: float


class Trainer:
    """Trains one module on one split and predicts with it."""

    def __init__(
        self,
        module: nn.Module,
        head: tuple[str, ...],
        tokens: Tokens,
        targets: Targets,
        settings: TrainSettings,
        device: Device,
        tricks: Tricks = ALL,
        micro_batch: int | None = None,
        group: Group = ALONE,
    ) -> None:
        """Move the module and the tokens to the device.

        Args:
            module: see `toxbench.Backbone.build`; it is changed in place.
            head: top-level attributes that learn at ``head_learning_rate``.
            tokens: of all rows of the table.
            targets: 0/1, ``[row, label]``, of all rows; only train and validation rows are read.
            settings: how to train.
            device: where.
            tricks: what to do to be fast.
            micro_batch: comments in one forward pass, where memory does not allow this process's
                part of ``batch_size``; gradients of more passes then make the same step.
            group: the processes that do the same with the same.

        Raises:
            PluginError: no parameter belongs to the head, or the settings ask for what the module
                does not have.
        """
        set_dropout(module, settings.dropout)
        self._module = module.to(device.torch)
        self._settings = settings
        self._device = device
        self._targets = targets
        self._tricks = tricks
        self._head = head
        self._group = group
        self._micro_batch = micro_batch or group.portion(settings.batch_size)
        self._batcher = Batcher(
            tokens,
            targets,
            device.torch,
            settings.max_length if settings.padding == "max_length" else None,
            WIDTH_MULTIPLE[device.kind],
        )
        self._predictor = Predictor(self._module, targets.shape[1], settings.max_length, device)
        parameter_groups(self._module, head, settings)  # raises here what would be raised later

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        return self._module

    @property
    def parameter_count(self) -> int:
        """Parameters of the module, the new head included."""
        return sum(parameter.numel() for parameter in self._module.parameters())

    def train(
        self,
        split: Split,
        seed: int,
        validate: Validate,
        keep: Keep,
        on_epoch: Callable[[EpochRecord], None],
    ) -> Trained:
        """Train on the train rows; end with the weights of the epoch that was kept.

        Without validation rows, or with ``selection="last"``, that is the last one.

        Args:
            split: rows of each part; the test rows are not looked at.
            seed: of the order of rows; seed torch as well, for the head and dropout.
            validate: scores of the validation rows, called after each epoch.
            keep: whether an epoch with these scores replaces the one kept before.
            on_epoch: called after each epoch.

        Raises:
            DivergedError: the mean loss of an epoch is not finite.
            PluginError: the module's logits break the contract.
        """
        with self._used_rows(split.train):
            return self._train(split, self._course(split.train, seed), validate, keep, on_epoch)

    def _train(
        self,
        split: Split,
        course: "_Course",
        validate: Validate,
        keep: Keep,
        on_epoch: Callable[[EpochRecord], None],
    ) -> Trained:
        chooses = self._settings.selection == "best" and len(split.validation) > 0
        records: list[EpochRecord] = []
        kept, weights = 0, None
        for epoch in range(1, self._settings.epochs + 1):
            started = time.perf_counter()
            mean_loss = self._epoch(course)
            seconds = time.perf_counter() - started
            if not np.isfinite(mean_loss):
                raise DivergedError(
                    f"the training loss of epoch {epoch} is {mean_loss}; lower the learning rate"
                )
            scores = self._validate(split.validation, validate)
            record = EpochRecord(
                epoch=epoch, train_loss=mean_loss, validation=scores, seconds=seconds
            )
            records.append(record)
            on_epoch(record)
            if not chooses or self._group.agree(keep(scores)):
                kept = epoch
                weights = _copy(self._module) if chooses and epoch < self._settings.epochs else None
        if weights is not None:
            self._module.load_state_dict(weights)
        return Trained(tuple(records), kept, sum(record.seconds for record in records))

    def predict(self, rows: Rows, precision: Precision | None = None) -> Probabilities:
        """Return probabilities of rows; raises as `toxbench.training.predictor.Predictor.predict`.

        Args:
            rows: in the order of the result.
            precision: None: that of the training.
        """
        predictor = self._predictor
        if precision not in {None, self._device.precision}:
            device = replace(self._device, precision=precision)
            label_count = self._targets.shape[1]
            predictor = Predictor(self._module, label_count, self._settings.max_length, device)

        def work(some: Rows) -> Probabilities:
            return predictor.predict(self._batcher, some)

        self._group.same_buffers(self._module)
        return self._group.divided(rows, self._batcher.lengths, work)

    def _course(self, rows: Rows, seed: int) -> "_Course":
        settings = self._settings
        cheap = self._tricks.cheap_dropout and self._device.kind == "cpu"
        optimizer = make_optimizer(
            parameter_groups(self._module, self._head, settings), settings, self._device
        )
        replica = self._group.replica(self._predictor.forward)
        self._group.own_noise(seed)
        return _Course(
            rows=rows,
            replica=replica,
            rng=np.random.default_rng(seed),
            loss=LOSSES[settings.loss](self._targets[rows], settings),
            optimizer=optimizer,
            scheduler=make_scheduler(optimizer, settings, len(rows)),
            dropout=CheapDropout() if cheap else nullcontext(),
        )

    def _epoch(self, course: "_Course") -> float:
        """Train once on all rows; return the mean loss of a comment."""
        self._module.train()
        # Summed on the device: reading it each step would make the host wait for each step.
        total = torch.zeros((), device=self._device.torch)
        steps = list(self._steps(course))
        own = [self._group.share(step) for step in steps]
        batches = self._batcher.batches([one.rows for passes in own for one in passes])
        for step, passes in zip(steps, own, strict=True):
            comments = sum(map(len, step))
            for number, batch in enumerate(islice(batches, len(passes)), start=1):
                counted = passes[number - 1].counted
                with course.replica.passing(is_last=number == len(passes)):
                    with self._device.autocast(), course.dropout:
                        logits = course.replica.forward(batch.input_ids, batch.attention_mask)
                    value = course.loss(logits, batch.targets)
                    # A group averages the gradients of its processes; what is meant is their sum.
                    weight = counted * self._group.size / comments
                    (value * weight).backward()  # type: ignore[no-untyped-call]
                total += value.detach() * counted
            if self._settings.clip_norm > 0:
                nn.utils.clip_grad_norm_(self._module.parameters(), self._settings.clip_norm)
            course.optimizer.step()
            course.scheduler.step()
            course.optimizer.zero_grad(set_to_none=True)
        return self._group.sum(float(total)) / len(course.rows)

    def _steps(self, course: "_Course") -> Iterator[list[Rows]]:
        """Draw one epoch's batches; yield, for each step, the rows of its forward passes."""
        settings, micro = self._settings, self._micro_batch
        bucket = settings.padding == "bucket"
        lengths = self._batcher.lengths
        drawn = epoch_batches(course.rows, lengths, settings.batch_size, course.rng, bucket)
        for start in range(0, len(drawn), settings.accumulation):
            batches = drawn[start : start + settings.accumulation]
            yield [rows[i : i + micro] for rows in batches for i in range(0, len(rows), micro)]

    def _used_rows(self, rows: Rows) -> AbstractContextManager[object]:
        if not self._tricks.used_rows:
            return nullcontext()
        return used_rows_only(self._module, self._batcher.every_id(), lambda: self._try(rows))

    def _try(self, rows: Rows) -> None:
        """Run the module on one row."""
        self._module.eval()
        for batch in self._batcher.batches([rows[:1]]):
            self._predictor.logits(batch)

    def _validate(self, rows: Rows, validate: Validate) -> Scores:
        return validate(self._targets[rows], self.predict(rows)) if len(rows) else {}


@dataclass(frozen=True, eq=False)
class _Course:
    """What one training goes by.

    Attributes:
        rows: to train on.
        replica: of the module.
        rng: draws the batches of each epoch.
        dropout: entered for each forward pass.
    """

    rows: Rows
    replica: Replica
    rng: np.random.Generator
    loss: Loss
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    dropout: AbstractContextManager[object]


def make_optimizer(
    groups: list[dict[str, Any]], settings: TrainSettings, device: Device
) -> torch.optim.Optimizer:
    """Return AdamW or Adam, fused into one kernel where the device has it."""
    fused = device.kind in {"cpu", "cuda"}
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, fused=fused)
    return torch.optim.AdamW(groups, fused=fused)


def make_scheduler(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, row_count: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return warm-up from 0, then linear decay to 0 or a constant rate."""
    batches = -(-row_count // settings.batch_size)
    steps = settings.epochs * -(-batches // settings.accumulation)
    warmup = round(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if settings.schedule == "constant":
            return 1.0
        return (steps - step) / max(1, steps - warmup)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
