"""The one training loop, for every backbone on every device."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import nn

from toxbench.data.protocol import Split
from toxbench.data.tokenization import Tokens
from toxbench.errors import CellsFailedError
from toxbench.records import EpochRecord, Scores
from toxbench.settings import TrainSettings
from toxbench.training.dataloader import Batch, Batcher, epoch_batches
from toxbench.training.device import Device, Precision
from toxbench.training.embedding import trim_embedding
from toxbench.training.fast_dropout import PooledDropout
from toxbench.training.losses import LOSSES, Loss
from toxbench.training.optimizer import (
    make_optimizer,
    make_scheduler,
    parameter_groups,
    set_dropout,
    steps_an_epoch,
)
from toxbench.training.predictor import WIDTH_MULTIPLE, Predictor, Probabilities
from toxbench.training.process_group import SINGLE_PROCESS, Pass, ProcessGroup, Replica
from toxbench.training.state import (
    Backward,
    Checkpoints,
    Dropout,
    NoCheckpoints,
    State,
    Trained,
    TrainingState,
)
from toxbench.util.arrays import Rows, Targets
from toxbench.util.signals import StopRequested, never_stop


@dataclass(frozen=True)
class Optimizations:
    """Ways to compute the same in less time; tests/bench/test_tricks.py measures each.

    Attributes:
        cheap_dropout: masks from a pool of noise (`PooledDropout`); on the CPU only.
        used_rows: of the token embedding, train only what the table uses (`trim_embedding`).
    """

    cheap_dropout: bool = True
    used_rows: bool = True


ALL = Optimizations()
PLAIN = Optimizations(cheap_dropout=False, used_rows=False)


Validate = Callable[[Targets, Probabilities], Scores]
Keep = Callable[[Scores], bool]


class DivergedError(CellsFailedError):
    """The loss became NaN or infinite."""


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
        tricks: Optimizations = ALL,
        micro_batch: int | None = None,
        checkpoints: Checkpoints | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
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
            checkpoints: where the training's state is kept; None: nowhere.
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
        self._micro_batch = micro_batch or group.per_rank_batch(settings.batch_size)
        self._checkpoints: Checkpoints = checkpoints or NoCheckpoints()
        self._finished: State | None = None
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
        should_stop: Callable[[Scores], bool] = lambda scores: False,
    ) -> Trained:
        """Train on the train rows; end with the weights of the epoch that was kept.

        Without validation rows, or with ``selection="last"``, that is the last one. With
        ``eval_steps``, the validation rows are looked at after so many steps, and not after each
        epoch; what is said here of epochs holds of what lies between two looks. A training whose
        state was kept goes on from there, and tells of the epochs before again.

        Args:
            split: rows of each part; the test rows are not looked at.
            seed: of the order of rows; seed torch as well, for the head and dropout.
            validate: scores of the validation rows, called after each epoch.
            keep: whether an epoch with these scores replaces the one kept before.
            on_epoch: called after each epoch.
            is_over: whether the training ends with the epoch that has these scores.

        Raises:
            DivergedError: the mean loss of an epoch is not finite.
            PluginError: the module's logits break the contract.
            StorageError: the state cannot be kept.
            Stopped: it was asked to, and its state is kept.
        """
        with self._trim_embedding(split.train):
            course = self._course(split, seed)
            going = self._resume(course, keep, on_epoch, should_stop)
            steps, broadcast_flag = self._steps_of(course), self._group.broadcast_flag
            while going and not course.is_done:
                record = self._train_until_eval(course, steps, split.validation, validate)
                course.record_evaluation(
                    record, not course.chooses or broadcast_flag(keep(record.validation))
                )
                on_epoch(record)
                going = not broadcast_flag(should_stop(record.validation))
            trained = course.finish()
            self._finished = course.state()
            return trained

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
        # Processes that compute together stop together, between two steps.
        should_stop = self._checkpoints.should_stop if self._group.size == 1 else never_stop

        def work(some: Rows) -> Probabilities:
            return predictor.predict(self._batcher, some, should_stop)

        self._group.same_buffers(self._module)
        try:
            return self._group.scatter_rows(rows, self._batcher.lengths, work)
        except StopRequested:
            if self._finished is not None:
                self._checkpoints.save(self._finished)
            raise

    def _course(self, split: Split, seed: int) -> TrainingState:
        settings, rows = self._settings, split.train
        cheap = self._tricks.cheap_dropout and self._device.kind == "cpu"
        optimizer = make_optimizer(
            parameter_groups(self._module, self._head, settings), settings, self._device
        )
        an_epoch = steps_an_epoch(settings, len(rows))
        replica = self._group.replica(self._predictor.forward)
        dropout = PooledDropout() if cheap else nullcontext()
        loss = LOSSES[settings.loss](self._targets[rows], settings)
        self._group.seed_rank(seed)
        return TrainingState(
            module=self._module,
            replica=replica,
            device=self._device,
            rows=rows,
            chooses=settings.selection == "best" and len(split.validation) > 0,
            steps_an_epoch=an_epoch,
            steps=settings.epochs * an_epoch,
            eval_every=settings.eval_steps or an_epoch,
            rng=np.random.default_rng(seed),
            backward=self._backward(replica, loss, dropout),
            optimizer=optimizer,
            scheduler=make_scheduler(optimizer, settings, len(rows)),
            dropout=dropout,
            total=torch.zeros((), device=self._device.torch),
        )

    def _backward(self, replica: Replica, loss: Loss, dropout: Dropout) -> Backward:
        """Return a forward and backward pass of one batch."""

        def backward(batch: Batch, weight: float) -> torch.Tensor:
            with self._device.autocast(), dropout:
                logits = replica.forward(batch.input_ids, batch.attention_mask)
            value = loss(logits, batch.targets)
            (value * weight).backward()  # type: ignore[no-untyped-call]
            return value.detach()

        return backward

    def _resume(
        self,
        course: TrainingState,
        keep: Keep,
        on_epoch: Callable[[EpochRecord], None],
        should_stop: Callable[[Scores], bool],
    ) -> bool:
        """Go on from the state that was kept, if there is one; return whether there is more to do.

        Who chooses among epochs hears of those before again, and so comes to the same choice.
        """
        state = self._checkpoints.load()
        if state is None:
            return True
        course.restore(state)
        over = False
        for record in course.records:
            if course.chooses:
                keep(record.validation)
            on_epoch(record)
            over = should_stop(record.validation)
        return not over

    def _train_until_eval(
        self, course: TrainingState, steps: Iterator["_Step"], rows: Rows, validate: Validate
    ) -> EpochRecord:
        """Train until the next look, look, and return what was seen."""
        self._module.train()
        clock = time.perf_counter()
        while course.step < course.next_eval_step:
            self._step(course, next(steps))
            asked = self._checkpoints.should_stop()
            if asked or self._checkpoints.is_due():
                course.seconds += time.perf_counter() - clock
                self._checkpoints.save(course.state())
                clock = time.perf_counter()
            if asked:
                raise StopRequested
        mean_loss = self._group.sum(float(course.total)) / max(1, course.comments)
        course.seconds += time.perf_counter() - clock
        number = len(course.records) + 1
        if not np.isfinite(mean_loss):
            raise DivergedError(
                f"the training loss of epoch {number} is {mean_loss}; lower the learning rate"
            )
        by_steps = self._settings.eval_steps > 0
        return EpochRecord(
            epoch=number,
            train_loss=mean_loss,
            validation=self._validate(course, rows, validate),
            seconds=course.seconds,
            step=course.step if by_steps else None,
            comments=course.comments if by_steps else None,
        )

    def _step(self, course: TrainingState, step: "_Step") -> None:
        """Make one step of the optimizer."""
        for one, batch in zip(step.passes, step.batches, strict=True):
            with course.replica.passing(is_last=one is step.passes[-1]):
                # A group averages the gradients of its processes; what is meant is their sum.
                weight = one.counted * self._group.size / step.comments
                course.total += course.backward(batch, weight) * one.counted
        if self._settings.clip_norm > 0:
            nn.utils.clip_grad_norm_(self._module.parameters(), self._settings.clip_norm)
        course.optimizer.step()
        course.scheduler.step()
        course.optimizer.zero_grad(set_to_none=True)
        course.comments += step.comments
        course.step += 1

    def _steps_of(self, course: TrainingState) -> Iterator["_Step"]:
        """Yield the steps of a training from where it is."""
        while True:
            course.begin_epoch()
            steps = list(self._drawn(course))[course.step % course.steps_an_epoch :]
            own = [self._group.share(step) for step in steps]
            batches = self._batcher.batches([one.rows for passes in own for one in passes])
            for step, passes in zip(steps, own, strict=True):
                yield _Step(sum(map(len, step)), passes, islice(batches, len(passes)))

    def _drawn(self, course: TrainingState) -> Iterator[list[Rows]]:
        """Draw one epoch's batches; yield, for each step, the rows of its forward passes."""
        settings, micro = self._settings, self._micro_batch
        bucket = settings.padding == "bucket"
        lengths = self._batcher.lengths
        drawn = epoch_batches(course.rows, lengths, settings.batch_size, course.rng, bucket)
        for start in range(0, len(drawn), settings.accumulation):
            batches = drawn[start : start + settings.accumulation]
            yield [rows[i : i + micro] for rows in batches for i in range(0, len(rows), micro)]

    def _trim_embedding(self, rows: Rows) -> AbstractContextManager[object]:
        if not self._tricks.used_rows:
            return nullcontext()
        return trim_embedding(
            self._module, self._batcher.every_id(), lambda: self._probe_forward(rows)
        )

    def _probe_forward(self, rows: Rows) -> None:
        """Run the module on one row."""
        self._module.eval()
        for batch in self._batcher.batches([rows[:1]]):
            self._predictor.logits(batch)

    def _validate(self, course: TrainingState, rows: Rows, validate: Validate) -> Scores:
        if not len(rows):
            return {}
        try:
            return validate(self._targets[rows], self.predict(rows))
        except StopRequested:
            self._checkpoints.save(course.state())
            raise


@dataclass(frozen=True)
class _Step:
    """What one step of the optimizer is made of.

    Attributes:
        comments: in all processes.
        passes: of this process.
        batches: one for each of them, gathered as they are needed.
    """

    comments: int
    passes: Sequence[Pass]
    batches: Iterator[Batch]
