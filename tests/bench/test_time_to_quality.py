"""Seconds until the Trainer reaches the scores of toxbench's default settings.

Run by hand on the real table: ``pytest tests/bench/test_time_to_quality.py -m bench -s``. The folds
are within the train rows; the test rows are not used.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.model_selection import KFold

from toxbench.config import build_run_settings
from toxbench.data.protocol import Split
from toxbench.plugin.registry import Registry
from toxbench.util.arrays import Probabilities

if TYPE_CHECKING:
    from toxbench.speed.measure import Task

pytestmark = pytest.mark.bench
EPOCHS = (4, 8, 12)  # of the Trainer, each with its own decay of the learning rate
TRAINER = {"learning_rate": 2e-4, "batch_size": 16}  # the best for a random head
MIN_RATIO = 4.0


def fold_tasks(table: Path, name: str) -> "Iterator[Task]":
    """Yield the training of each fold; its test rows are train rows of the table's split."""
    from toxbench.benchmark.validate import resolve
    from toxbench.speed.measure import speed_tasks

    flags = {"data": table, "weights": ("stand-in",), "backbones": (name,),
             "split": {"validation_size": 0.0}}  # fmt: skip
    (task,) = speed_tasks(resolve(build_run_settings({}, flags), Registry.discover()))
    rows = np.sort(task.split.train)
    for train, test in KFold(4, shuffle=True, random_state=7).split(rows):
        yield replace(task, split=Split(rows[train], rows[:0], rows[test]))


def run_toxbench(task: "Task") -> tuple[float, float]:
    """Return the seconds of the training and the micro average precision."""
    from toxbench.evaluation.early_stopping import epoch_scores
    from toxbench.speed.measure import timed_training

    with task.trainer_factory.trainer(task.settings, seed=0) as trainer:
        timed = timed_training(
            task.device,
            lambda: trainer.train(task.split, 0, epoch_scores, lambda epoch: None),
        )
        return timed.seconds, average_precision(task, trainer.predict(task.split.test))


def run_trainer(task: "Task", epochs: int) -> tuple[float, float]:
    """Return the seconds and the micro average precision of transformers' Trainer."""
    from speed_peers import _quiet, _transformers_trainer

    from toxbench.speed.measure import timed_training
    from toxbench.training.dataloader import Batcher
    from toxbench.training.device import seeded
    from toxbench.training.predictor import Predictor

    settings = task.settings.model_copy(update={**TRAINER, "epochs": epochs})
    task = replace(task, candidate=replace(task.candidate, settings=settings))
    options = {"num_train_epochs": epochs, "train_sampling_strategy": "group_by_length",
               "bf16": task.device.precision == "bf16"}  # fmt: skip
    with _quiet(), seeded(0, task.device), TemporaryDirectory() as folder:
        trainer = _transformers_trainer(task, task.device, task.split.train, folder, options)
        timed = timed_training(task.device, trainer.train)
        targets = task.comments.targets
        predictor = Predictor(trainer.model, targets.shape[1], settings.max_length, task.device)
        batcher = Batcher(task.tokens, targets, task.device.torch)
        return timed.seconds, average_precision(task, predictor.predict(batcher, task.split.test))


def average_precision(task: "Task", probabilities: Probabilities) -> float:
    targets = task.comments.targets[task.split.test]
    return float(average_precision_score(targets.ravel(), probabilities.ravel()))


@pytest.mark.parametrize("name", ["distilbert", "bert"])
def test_trainer_needs_four_times_as_long(real_table: Path, name: str) -> None:
    pytest.importorskip("accelerate")
    tasks = list(fold_tasks(real_table, name))
    runs = [run_toxbench(task) for task in tasks]
    seconds, target = (fmean(values) for values in zip(*runs, strict=True))
    print(f"\n{name}: toxbench {seconds:.1f} s a fold, average precision {target:.3f}")
    reached = []
    for epochs in EPOCHS:
        peer = [run_trainer(task, epochs) for task in tasks]
        peer_seconds, score = (fmean(values) for values in zip(*peer, strict=True))
        ratio = peer_seconds / seconds
        print(f"{name}: Trainer, {epochs} epochs: {ratio:.2f} times as long, {score:.3f}")
        reached += [ratio] if score >= target else []
    assert not reached or min(reached) >= MIN_RATIO
