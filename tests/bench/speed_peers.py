"""Ways to train the same rows: toxbench, transformers' Trainer, the original notebook's loop."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from transformers import DataCollatorWithPadding, PrinterCallback, TrainingArguments
from transformers import Trainer as TransformersTrainer

from toxbench.config import PRESETS
from toxbench.plugin.contracts import Backbone
from toxbench.plugin.loading import quiet_transformers
from toxbench.speed.measure import (
    WARM_UP_BATCHES,
    Task,
    TimedTraining,
    timed_run,
    timed_training,
    warm_up,
)
from toxbench.training.device import Device, seeded
from toxbench.util.arrays import Rows

# Slow variants are timed on a random sample of comments, and the epoch is extrapolated.
_BATCHES_OF_DEFAULT_TRAINER = 10
_COMMENTS_OF_NOTEBOOK = 40


class Variant(Protocol):
    """A way to train a task. Each run starts from a fresh module."""

    @property
    def name(self) -> str:
        """The name in the table."""

    @property
    def device(self) -> Device:
        """The device and the precision."""

    @property
    def comments(self) -> int:
        """Comments trained on in one timed run, counted once in each epoch."""

    def warm_up(self) -> None:
        """Train for a few steps, so that one-time costs are not measured."""

    def run(self) -> TimedTraining:
        """Train and measure."""


class WholeEpochs:
    """Base of the variants that train on all train rows, on the task's device."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def device(self) -> Device:
        """The task's device, in bf16 if toxbench trains in bf16."""
        return self._task.device

    @property
    def comments(self) -> int:
        """All train rows in each epoch."""
        return len(self._task.rows) * self._task.settings.epochs


class ToxbenchLoop(WholeEpochs):
    """toxbench's loop; each run also predicts all rows of the table, which is timed separately."""

    name = "toxbench"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.evaluation_seconds: list[float] = []

    def warm_up(self) -> None:
        warm_up(self._task)

    def run(self) -> TimedTraining:
        training, seconds = timed_run(self._task)
        self.evaluation_seconds.append(seconds)
        return training


class TrainerPeer(WholeEpochs):
    """transformers' Trainer over all epochs, with the options that make it fast."""

    name = "trainer"

    def warm_up(self) -> None:
        """Train on a few batches for one epoch."""
        few = self._task.rows[: WARM_UP_BATCHES * self._task.settings.batch_size]
        self._timed(few, {**self._options(), "num_train_epochs": 1})

    def run(self) -> TimedTraining:
        """Train on all train rows."""
        return self._timed(self._task.rows, self._options())

    def _options(self) -> dict[str, Any]:
        settings = self._task.settings
        return {
            "num_train_epochs": settings.epochs,
            "train_sampling_strategy": "group_by_length",
            "bf16": self.device.precision == "bf16",
        }

    def _timed(self, rows: Rows, options: Mapping[str, Any]) -> TimedTraining:
        """Build a module and a Trainer, and time its ``train``."""
        with _quiet(), seeded(0, self.device), TemporaryDirectory() as folder:
            trainer = _transformers_trainer(self._task, self.device, rows, folder, options)
            return timed_training(self.device, trainer.train)


class DefaultTrainerPeer(TrainerPeer):
    """The Trainer with its defaults: fp32, random batches padded to their longest comment."""

    name = "trainer-default"

    @property
    def device(self) -> Device:
        """The task's device, in fp32."""
        return replace(self._task.device, precision="fp32")

    @property
    def comments(self) -> int:
        """The comments of a few batches."""
        count = _BATCHES_OF_DEFAULT_TRAINER * self._task.settings.batch_size
        return min(count, len(self._task.rows))

    def run(self) -> TimedTraining:
        """Train on a sample of the rows for one epoch."""
        return self._timed(_sample(self._task.rows, self.comments), self._options())

    def _options(self) -> dict[str, Any]:
        return {"num_train_epochs": 1}


class NotebookPeer:
    """The original study's loop: fp32, Adam, one padded comment at a time; plain PyTorch."""

    name = "notebook"

    def __init__(self, task: Task) -> None:
        self._task = task
        preset = PRESETS["notebook"].train
        self._rate: float = preset["learning_rate"]

    @property
    def device(self) -> Device:
        """The task's device, in fp32."""
        return replace(self._task.device, precision="fp32")

    @property
    def comments(self) -> int:
        """A few: all take the same time, because all are padded to the same length."""
        return min(_COMMENTS_OF_NOTEBOOK, len(self._task.rows))

    def warm_up(self) -> None:
        """Train on a few comments."""
        self._timed(self._task.rows[:WARM_UP_BATCHES])

    def run(self) -> TimedTraining:
        """Train on a sample of the comments."""
        return self._timed(_sample(self._task.rows, self.comments))

    def _timed(self, rows: Rows) -> TimedTraining:
        with _quiet(), seeded(0, self.device):
            module = _plain_module(self._task).to(self.device.torch).train()
            padded = [_padded(self._task, row) for row in rows.tolist()]
            return timed_training(self.device, lambda: self._train(module, padded))

    def _train(self, module: nn.Module, padded: list[dict[str, torch.Tensor]]) -> None:
        optimizer = torch.optim.Adam(module.parameters(), lr=self._rate)
        for comment in padded:
            optimizer.zero_grad()
            output = module(**{k: v.to(self.device.torch) for k, v in comment.items()})
            output.loss.backward()
            optimizer.step()


@dataclass(frozen=True)
class Measured:
    """The measurements of one variant.

    Attributes:
        variant: the variant that was run.
        epochs: the seconds of an epoch over all train rows, one for each round.
        peak_memory_bytes: the highest of all runs.
    """

    variant: Variant
    epochs: list[float]
    peak_memory_bytes: int

    def times_slower(self, reference: "Measured") -> list[float]:
        """Return the ratio of the seconds of both in each round."""
        pairs = zip(self.epochs, reference.epochs, strict=True)
        return [epoch / faster for epoch, faster in pairs]


def measure_in_turn(task: Task, variants: Sequence[Variant], repeats: int) -> list[Measured]:
    """Warm every variant up, then run them in turn: a slower machine slows down all of them."""
    name = task.candidate.name
    for variant in variants:
        print(f"[{name}] {variant.name}: warm-up")
        variant.warm_up()
    measured = [Measured(variant, [], 0) for variant in variants]
    for number in range(1, repeats + 1):
        for place, before in enumerate(measured):
            variant = before.variant
            training = variant.run()
            epoch = training.seconds / variant.comments * len(task.rows)
            memory = max(before.peak_memory_bytes, training.peak_memory_bytes)
            measured[place] = Measured(variant, [*before.epochs, epoch], memory)
            print(f"[{name}] {variant.name}, run {number} of {repeats}: {epoch:.2f} s an epoch")
    return measured


def _transformers_trainer(
    task: Task, device: Device, rows: Rows, folder: str, options: Mapping[str, Any]
) -> TransformersTrainer:
    """Make a Trainer with a fresh module that logs, saves and evaluates nothing."""
    settings = task.settings
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        use_cpu=device.kind == "cpu",
        dataloader_pin_memory=device.kind == "cuda",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=0,
        **options,
    )
    tokenizer = task.candidate.backbone.tokenizer(task.folder)
    trainer = TransformersTrainer(
        model=_plain_module(task),
        args=arguments,
        train_dataset=[_features(task, row) for row in rows.tolist()],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _plain_module(task: Task) -> nn.Module:
    """Build the module that AutoModelForSequenceClassification makes of the weights."""
    return Backbone.build(task.candidate.backbone, task.folder, len(task.comments.labels))


def _features(task: Task, row: int) -> dict[str, list[int] | list[float]]:
    """Return one row as a Trainer's data set holds it, not padded."""
    ids = _ids(task, row)
    labels = task.comments.targets[row].astype(float).tolist()
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def _padded(task: Task, row: int) -> dict[str, torch.Tensor]:
    """Return one row as a batch of one, padded to ``max_length``; ``[1, token]``."""
    ids, width = _ids(task, row), task.settings.max_length
    more = width - len(ids)
    return {
        "input_ids": torch.tensor([ids + [task.tokens.pad_id] * more]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * more]),
        "labels": torch.tensor(task.comments.targets[row : row + 1], dtype=torch.float32),
    }


def _ids(task: Task, row: int) -> list[int]:
    start, end = task.tokens.offsets[row : row + 2].tolist()
    ids: list[int] = task.tokens.ids[start:end].tolist()
    return ids


def _sample(rows: Rows, count: int) -> Rows:
    return np.random.default_rng(0).permutation(rows)[:count]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of transformers and torch about the settings of a peer."""
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        yield
