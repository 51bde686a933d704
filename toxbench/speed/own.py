"""toxbench's own loop, timed as a cell runs it."""

import time
from dataclasses import replace

import numpy as np

from toxbench.data.split import Split
from toxbench.evaluation.epochs import EpochChoice, epoch_scores
from toxbench.records import EpochRecord
from toxbench.speed.task import WARM_UP_BATCHES, Timed, WholeEpochs, timed
from toxbench.training.loop import Trainer
from toxbench.training.peak import wait


class OwnLoop(WholeEpochs):
    """Trains all epochs on all train rows, then predicts all rows of the table."""

    name = "toxbench"

    def warm_up(self) -> None:
        """Train on a few batches for one epoch, and predict them."""
        settings = self._task.settings.model_copy(update={"epochs": 1})
        few = self._task.rows[: WARM_UP_BATCHES * settings.batch_size]
        split = replace(self._task.split, train=few)
        with self._task.bench.trainer(settings, seed=0) as trainer:
            _train(trainer, split)
            trainer.predict(few)

    def run(self) -> Timed:
        """Train and predict."""
        everything = np.arange(len(self._task.comments), dtype=np.int64)
        with self._task.bench.trainer(self._task.settings, seed=0) as trainer:
            training = timed(self.device, lambda: _train(trainer, self._task.split))
            started = time.perf_counter()
            trainer.predict(everything)
            wait(self.device)
            seconds = time.perf_counter() - started
            return replace(training, evaluation_seconds=seconds)


def _train(trainer: Trainer, split: Split) -> None:
    trainer.train(split, 0, epoch_scores, EpochChoice().keep, _ignore)


def _ignore(epoch: EpochRecord) -> None:
    """No one listens."""
