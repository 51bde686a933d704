"""What a user would take instead: transformers' Trainer, and the loop of the original notebook."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DataCollatorWithPadding, PrinterCallback, TrainingArguments
from transformers import Trainer as TransformersTrainer

from toxbench.benchmark.workbench import quiet_transformers
from toxbench.data.split import Rows
from toxbench.errors import PluginError
from toxbench.plugin.backbone import Backbone
from toxbench.presets import PRESETS
from toxbench.speed.request import NOTEBOOK, TRAINER, TRAINER_DEFAULT
from toxbench.speed.task import WARM_UP_BATCHES, Task, Timed, Variant, WholeEpochs, timed
from toxbench.training.device import Device, seeded

# What is slow is timed on some comments, drawn at random, and its epoch is extrapolated.
_BATCHES_OF_DEFAULT_TRAINER = 10
_COMMENTS_OF_NOTEBOOK = 40


class TrainerPeer(WholeEpochs):
    """transformers' Trainer over all epochs, with the options that make it fast."""

    name = TRAINER

    def warm_up(self) -> None:
        """Train on a few batches for one epoch."""
        few = self._task.rows[: WARM_UP_BATCHES * self._task.settings.batch_size]
        self._timed(few, {**self._options(), "num_train_epochs": 1})

    def run(self) -> Timed:
        """Train on all train rows."""
        return self._timed(self._task.rows, self._options())

    def _options(self) -> dict[str, Any]:
        settings = self._task.settings
        return {
            "num_train_epochs": settings.epochs,
            "train_sampling_strategy": "group_by_length",
            "bf16": self.device.precision == "bf16",
        }

    def _timed(self, rows: Rows, options: Mapping[str, Any]) -> Timed:
        """Build a module and a Trainer, and time its ``train``."""
        with _quiet(), seeded(0, self.device), TemporaryDirectory() as folder:
            trainer = _transformers_trainer(self._task, self.device, rows, folder, options)
            return timed(self.device, trainer.train)


class DefaultTrainerPeer(TrainerPeer):
    """The same untold: fp32, batches of any lengths, padded to their longest."""

    name = TRAINER_DEFAULT

    @property
    def device(self) -> Device:
        """The task's, in fp32."""
        return replace(self._task.device, precision="fp32")

    @property
    def comments(self) -> int:
        """Some batches."""
        count = _BATCHES_OF_DEFAULT_TRAINER * self._task.settings.batch_size
        return min(count, len(self._task.rows))

    def run(self) -> Timed:
        """Train on some rows for one epoch."""
        return self._timed(_some(self._task.rows, self.comments), self._options())

    def _options(self) -> dict[str, Any]:
        return {"num_train_epochs": 1}


class NotebookPeer:
    """The original study's loop: fp32, Adam, one padded comment at a time; plain PyTorch."""

    name = NOTEBOOK

    def __init__(self, task: Task) -> None:
        self._task = task
        preset = PRESETS["notebook"].train
        self._rate: float = preset["learning_rate"]

    @property
    def device(self) -> Device:
        """The task's, in fp32."""
        return replace(self._task.device, precision="fp32")

    @property
    def comments(self) -> int:
        """Some; all take the same time, because all are padded to the same length."""
        return min(_COMMENTS_OF_NOTEBOOK, len(self._task.rows))

    def warm_up(self) -> None:
        """Train on a few comments."""
        self._timed(self._task.rows[:WARM_UP_BATCHES])

    def run(self) -> Timed:
        """Train on some comments."""
        return self._timed(_some(self._task.rows, self.comments))

    def _timed(self, rows: Rows) -> Timed:
        with _quiet(), seeded(0, self.device):
            module = _plain_module(self._task).to(self.device.torch).train()
            padded = [_padded(self._task, row) for row in rows.tolist()]
            return timed(self.device, lambda: self._train(module, padded))

    def _train(self, module: nn.Module, padded: list[dict[str, torch.Tensor]]) -> None:
        optimizer = torch.optim.Adam(module.parameters(), lr=self._rate)
        for comment in padded:
            optimizer.zero_grad()
            output = module(**{k: v.to(self.device.torch) for k, v in comment.items()})
            output.loss.backward()
            optimizer.step()


def peer(name: str, task: Task) -> Variant:
    """Return the peer of that name."""
    kinds: Mapping[str, Callable[[Task], Variant]] = {
        TRAINER: TrainerPeer,
        TRAINER_DEFAULT: DefaultTrainerPeer,
        NOTEBOOK: NotebookPeer,
    }
    return kinds[name](task)


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
    """Build what AutoModelForSequenceClassification makes of the weights.

    Raises:
        PluginError: it knows no such architecture.
    """
    try:
        return Backbone.build(task.candidate.backbone, task.folder, len(task.comments.labels))
    except (ValueError, OSError) as error:
        raise PluginError(
            f"transformers makes no classifier of the weights of {task.candidate.name}, so that "
            "there is nothing to compare; leave out --against"
        ) from error


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


def _some(rows: Rows, count: int) -> Rows:
    return np.random.default_rng(0).permutation(rows)[:count]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what transformers and torch have to say about a peer's settings off the terminal."""
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        yield
