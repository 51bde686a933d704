"""The training loop, for every backbone on every device."""

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
from toxbench.training.dataloader import Batch, Batcher, epoch_batches, split_batch
from toxbench.training.device import Device, Precision
from toxbench.training.fast_dropout import PooledDropout
from toxbench.training.head import (
    START_PENALTY,
    Features,
    Head,
    choose_penalty,
    set_identity,
    set_probe,
)
from toxbench.training.losses import make_loss
from toxbench.training.optimizer import (
    make_optimizer,
    make_scheduler,
    parameter_groups,
    set_dropout,
    steps_per_epoch,
)
from toxbench.training.parameters import add_adapters, merge_adapters, trim_embedding
from toxbench.training.predictor import WIDTH_MULTIPLE, Predictor
from toxbench.training.process_group import SINGLE_PROCESS, Pass, ProcessGroup, backward_context
from toxbench.training.state import Checkpoints, StateDict, TrainingResult, TrainingState
from toxbench.util.arrays import Codes, Probabilities, Rows, Targets, hide_unlabelled, known_targets
from toxbench.util.processes import StopRequested, never_stop

Validate = Callable[[Targets, Probabilities], Scores]


@dataclass(frozen=True)
class Optimizations:
    """Optional optimizations of the training loop; tests/bench/test_tricks.py measures each.

    Attributes:
        pooled_dropout: take dropout masks from a pool of noise (`PooledDropout`); CPU only.
        trimmed_embedding: train only the rows of the token embedding that the table uses
            (`trim_embedding`).
    """

    pooled_dropout: bool = True
    trimmed_embedding: bool = True


ALL_OPTIMIZATIONS = Optimizations()
NO_OPTIMIZATIONS = Optimizations(pooled_dropout=False, trimmed_embedding=False)


class DivergedError(CellsFailedError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class _Step:
    """The input of one optimizer step: comments of all processes, passes of this process."""

    comments: int
    passes: Sequence[Pass]
    batches: Iterator[Batch]


class Trainer:
    """Trains one module on one split and predicts with it.

    Attributes:
        module: the trained module; with ``adaptation = lora``, with its adapters.
        parameter_count: number of the module's parameters, the new head included.
    """

    def __init__(
        self,
        module: nn.Module,
        head: Head,
        tokens: Tokens,
        codes: Codes,
        settings: TrainSettings,
        device: Device,
        optimizations: Optimizations = ALL_OPTIMIZATIONS,
        micro_batch: int | None = None,
        checkpoints: Checkpoints | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """Move the module and the tokens to the device.

        Args:
            module: see `toxbench.Backbone.build`; it is changed in place.
            head: the new layers, which learn at ``head_learning_rate``.
            tokens: of all rows of the table.
            codes: of all rows, ``[row, label]``; only those of train and validation rows are read.
            settings: training settings.
            device: device and precision.
            optimizations: optional optimizations of the loop.
            micro_batch: windows of comments in one forward pass, if memory is too small for this
                process's part of ``batch_size``. A step then adds the gradients of more passes.
            checkpoints: stores the state of the training; None: it is not stored.
            group: the processes that run the same training.

        Raises:
            PluginError: no parameter belongs to the head, or the module lacks a part that the
                settings require.
        """
        set_dropout(module, settings.dropout)
        self.parameter_count = sum(parameter.numel() for parameter in module.parameters())
        if settings.adaptation == "lora":
            add_adapters(module, head)
        self.module = module.to(device.torch)
        self._settings = settings
        self._device = device
        self._codes = codes
        self._optimizations = optimizations
        self._head = head
        self._group = group
        self._micro_batch = micro_batch or group.per_rank_batch(settings.batch_size)
        self._checkpoints = checkpoints or Checkpoints()
        self._final_state: StateDict | None = None
        self._batcher = Batcher(
            tokens,
            codes,
            device.torch,
            settings.max_length if settings.padding == "max_length" else None,
            WIDTH_MULTIPLE[device.kind],
        )
        self._predictor = Predictor(self.module, codes.shape[1], settings.max_length, device)
        parameter_groups(self.module, head, settings)  # raises its errors before training starts

    def train(
        self,
        split: Split,
        seed: int,
        validate: Validate,
        on_epoch: Callable[[EpochRecord], None],
        should_stop: Callable[[Scores], bool] = lambda scores: False,
    ) -> TrainingResult:
        """Train on the train rows; the module ends with the weights of the last epoch.

        With ``eval_steps``, the validation rows are evaluated after that many steps instead of
        after each epoch, and an "epoch" below is the time between two evaluations. If there is a
        checkpoint, the training resumes from it and first reports the earlier epochs again.

        Args:
            split: rows of each part; the test rows are not used.
            seed: for the order of rows; the caller seeds torch for the head and dropout.
            validate: returns the scores of the validation rows; called after each epoch.
            on_epoch: called after each epoch.
            should_stop: whether to stop early, after the epoch with these scores.

        Raises:
            DivergedError: the mean loss of an epoch is not finite.
            PluginError: the module's logits break the contract.
            StorageError: a checkpoint cannot be written.
            StopRequested: the checkpoints requested a stop, and the state is saved if the training
                has begun.
        """
        with self._embedding_context(split.train):
            checkpoint = self._checkpoints.load()
            head_seconds = 0.0 if checkpoint else self._start_head(split.train)
            if self._settings.adaptation == "probe":
                return TrainingResult((), head_seconds)
            state = self._initial_state(split, seed, head_seconds)
            is_over = self._resume(state, checkpoint, on_epoch, should_stop)
            steps = self._steps(state)
            while not is_over and not state.is_done:
                record = self._train_until_eval(state, steps, split.validation, validate)
                state.record_evaluation(record)
                on_epoch(record)
                is_over = self._group.broadcast_flag(should_stop(record.validation))
            self._final_state = state.state_dict()
            return state.result()

    def finished_module(self) -> nn.Module:
        """Return the module with the layers that the backbone built; no training may follow."""
        if self._settings.adaptation == "lora":
            merge_adapters(self.module)
        return self.module

    def predict(self, rows: Rows, precision: Precision | None = None) -> Probabilities:
        """Return probabilities float32 ``[row, label]``, in the order of ``rows``.

        They are 0 where a row is not labelled (see `hide_unlabelled`).

        Args:
            rows: indices of the rows, ``[row]``.
            precision: None: the precision of the training.

        Raises:
            PluginError: the module's logits break the contract or are not finite.
            StopRequested: the checkpoints requested a stop; the state after training is saved.
        """
        predictor = self._predictor
        if precision not in {None, self._device.precision}:
            device = replace(self._device, precision=precision)
            label_count = self._codes.shape[1]
            predictor = Predictor(self.module, label_count, self._settings.max_length, device)
        # Processes of a group stop together, between two steps, and not during a prediction.
        should_stop = self._checkpoints.should_stop if self._group.size == 1 else never_stop

        def predict_share(share: Rows) -> Probabilities:
            return predictor.predict(self._batcher, share, should_stop)

        self._group.same_buffers(self.module)
        try:
            probabilities = self._group.scatter_rows(rows, self._batcher.lengths, predict_share)
        except StopRequested:
            if self._final_state is not None:
                self._checkpoints.save(self._final_state)
            raise
        return hide_unlabelled(probabilities, self._codes[rows])

    def _start_head(self, rows: Rows) -> float:
        """Set the head to a linear probe of the frozen encoder, fitted on the given rows.

        Returns:
            the seconds that this took; 0 if the head starts without a probe.
        """
        settings, started = self._settings, time.perf_counter()
        if settings.head_init != "probe" and settings.adaptation != "probe":
            return 0.0
        last = self._head.last_layer(self.module, self._codes.shape[1])
        for layer in self._head.dense_layers(self.module, last):
            set_identity(layer)

        def features_of_share(share: Rows) -> Features:
            should_stop = self._checkpoints.should_stop if self._group.size == 1 else never_stop
            return self._predictor.features(self._batcher, share, last, should_stop)

        features = self._group.scatter_rows(rows, self._batcher.lengths, features_of_share)
        codes = self._codes[rows]
        is_final = settings.adaptation == "probe"
        penalty = choose_penalty(features, codes) if is_final else START_PENALTY
        set_probe(last, features, codes, penalty)
        return time.perf_counter() - started

    def _initial_state(self, split: Split, seed: int, head_seconds: float) -> TrainingState:
        settings, rows = self._settings, split.train
        is_pooled = self._optimizations.pooled_dropout and self._device.kind == "cpu"
        optimizer = make_optimizer(
            parameter_groups(self.module, self._head, settings), settings, self._device
        )
        epoch_steps = steps_per_epoch(settings, len(rows))
        replica = self._group.replica(self._predictor.forward)
        loss = make_loss(self._codes[rows], settings)
        self._group.seed_rank(seed)
        return TrainingState(
            module=self.module,
            replica=replica,
            device=self._device,
            rows=rows,
            steps_per_epoch=epoch_steps,
            total_steps=settings.epochs * epoch_steps,
            eval_interval=settings.eval_steps or epoch_steps,
            rng=np.random.default_rng(seed),
            loss=loss,
            optimizer=optimizer,
            scheduler=make_scheduler(optimizer, settings, len(rows)),
            dropout=PooledDropout() if is_pooled else nullcontext(),
            loss_sum=torch.zeros((), device=self._device.torch),
            head_seconds=head_seconds,
        )

    def _resume(
        self,
        state: TrainingState,
        checkpoint: StateDict | None,
        on_epoch: Callable[[EpochRecord], None],
        should_stop: Callable[[Scores], bool],
    ) -> bool:
        """Load the checkpoint, if there is one; return whether the training has stopped early.

        The callbacks are called again for the earlier epochs, so that their own state is restored.
        """
        if checkpoint is None:
            return False
        state.load_state_dict(checkpoint)
        is_over = False
        for record in state.evaluations:
            on_epoch(record)
            is_over = should_stop(record.validation)
        return is_over

    def _train_until_eval(
        self, state: TrainingState, steps: Iterator[_Step], rows: Rows, validate: Validate
    ) -> EpochRecord:
        """Train until the next evaluation, evaluate the validation rows, and return the record."""
        self.module.train()
        started = time.perf_counter()
        while state.step < state.next_eval_step:
            self._optimizer_step(state, next(steps))
            is_stopping = self._checkpoints.should_stop()
            if is_stopping or self._checkpoints.is_due():
                state.seconds += time.perf_counter() - started
                self._checkpoints.save(state.state_dict())
                started = time.perf_counter()
            if is_stopping:
                raise StopRequested
        mean_loss = self._group.sum(float(state.loss_sum)) / max(1, state.comments)
        state.seconds += time.perf_counter() - started
        number = len(state.evaluations) + 1
        if not np.isfinite(mean_loss):
            raise DivergedError(
                f"the training loss of epoch {number} is {mean_loss}; lower the learning rate"
            )
        by_steps = self._settings.eval_steps > 0
        return EpochRecord(
            epoch=number,
            train_loss=mean_loss,
            validation=self._validate(state, rows, validate),
            seconds=state.seconds,
            step=state.step if by_steps else None,
            comments=state.comments if by_steps else None,
        )

    def _optimizer_step(self, state: TrainingState, step: _Step) -> None:
        """Run the passes of a step and update the parameters."""
        for forward_pass, batch in zip(step.passes, step.batches, strict=True):
            with backward_context(state.replica, is_last=forward_pass is step.passes[-1]):
                # The gradients are averaged over the processes, but their sum is required.
                weight = forward_pass.counted * self._group.size / step.comments
                state.loss_sum += self._backward(state, batch, weight) * forward_pass.counted
        if self._settings.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.module.parameters(), self._settings.clip_norm)
        state.optimizer.step()
        state.scheduler.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.comments += step.comments
        state.step += 1

    def _backward(self, state: TrainingState, batch: Batch, weight: float) -> torch.Tensor:
        """Run the forward and backward pass of a batch; return its loss, detached."""
        with self._device.autocast(), state.dropout:
            logits = state.replica(batch.input_ids, batch.attention_mask)
        loss = state.loss(batch.pool(logits), batch.targets)
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _steps(self, state: TrainingState) -> Iterator[_Step]:
        """Yield the remaining steps of a training."""
        while True:
            state.begin_epoch()
            steps = list(self._epoch_steps(state))[state.step % state.steps_per_epoch :]
            shares = [self._group.share(step) for step in steps]
            batches = self._batcher.batches([p.rows for passes in shares for p in passes])
            for step, passes in zip(steps, shares, strict=True):
                yield _Step(sum(map(len, step)), passes, islice(batches, len(passes)))

    def _epoch_steps(self, state: TrainingState) -> Iterator[list[Rows]]:
        """Draw one epoch's batches; yield, for each step, the rows of its forward passes."""
        settings, micro = self._settings, self._micro_batch
        bucket = settings.padding == "bucket"
        lengths, counts = self._batcher.lengths, self._batcher.window_counts
        batches = epoch_batches(state.rows, lengths, settings.batch_size, state.rng, bucket)
        for start in range(0, len(batches), settings.accumulation):
            accumulated = batches[start : start + settings.accumulation]
            yield [part for rows in accumulated for part in split_batch(rows, counts, micro)]

    def _embedding_context(self, rows: Rows) -> AbstractContextManager[object]:
        """Return the context of the training, in which the token embedding may be trimmed."""
        if not self._optimizations.trimmed_embedding:
            return nullcontext()
        return trim_embedding(
            self.module, self._batcher.unique_ids(), lambda: self._probe_forward(rows)
        )

    def _probe_forward(self, rows: Rows) -> None:
        """Run the module on one row."""
        self.module.eval()
        for batch in self._batcher.batches([rows[:1]]):
            self._predictor.logits(batch)

    def _validate(self, state: TrainingState, rows: Rows, validate: Validate) -> Scores:
        if not len(rows):
            return {}
        try:
            return validate(known_targets(self._codes[rows]), self.predict(rows))
        except StopRequested:
            self._checkpoints.save(state.state_dict())
            raise
