"""Training one configuration on inner folds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from toxbench.benchmark.trainer_factory import Workbench
from toxbench.data.table import Targets
from toxbench.evaluation.metrics import average_precision
from toxbench.evaluation.thresholds import Probabilities, choose_thresholds
from toxbench.records import EpochRecord, Scores
from toxbench.settings import TrainSettings
from toxbench.training.trainer import Trainer
from toxbench.tuning.inner import InnerData

SCORE = "micro_average_precision"

OnEpoch = Callable[[int, EpochRecord], None]  # place of the fold, counted from 0, and the epoch


@dataclass(frozen=True)
class Result:
    """How a configuration did.

    Attributes:
        scores: micro average precision of each fold, after its last epoch.
        thresholds: rule -> threshold per label, chosen on the validation rows of all its folds.
    """

    scores: tuple[float, ...]
    thresholds: dict[str, tuple[float, ...]]


def train_on_folds(
    bench: Workbench,
    data: InnerData,
    folds: Sequence[int],
    settings: TrainSettings,
    seed: int,
    on_epoch: OnEpoch,
) -> Result:
    """Train on one inner fold after the other, and score the last epoch on its validation rows.

    Args:
        bench: of the table in ``data``.
        data: rows that are not test rows.
        folds: which of its folds.
        settings: how to train; the last epoch counts, whatever ``selection`` says.
        seed: of every training.
        on_epoch: called after each epoch; what it raises ends the training.

    Raises:
        CellsFailedError: the training diverged.
        PluginError: the backbone breaks its contract.
    """
    scores: list[float] = []
    targets: list[Targets] = []
    probabilities: list[Probabilities] = []
    for place, fold in enumerate(folds):
        work = partial(_train, data, fold, seed, place, on_epoch)
        (last, predicted), _ = bench.with_trainer(settings, seed, work)
        scores.append(last)
        targets.append(data.comments.targets[data.folds[fold].validation])
        probabilities.append(predicted)
    thresholds = choose_thresholds(np.concatenate(targets), np.concatenate(probabilities))
    return Result(tuple(scores), thresholds)


def score_of(scores: Scores) -> float:
    """Return the objective's value after an epoch; inner folds always have a positive."""
    value = scores[SCORE]
    return 0.0 if value is None else value


def _train(
    data: InnerData, fold: int, seed: int, place: int, on_epoch: OnEpoch, trainer: Trainer
) -> tuple[float, Probabilities]:
    """Train on one fold; return score and validation probabilities of the last epoch."""
    last: list[Probabilities] = []

    def validate(targets: Targets, probabilities: Probabilities) -> Scores:
        last[:] = [probabilities]
        return {SCORE: average_precision(targets, probabilities)}

    trained = trainer.train(
        data.folds[fold], seed, validate, lambda scores: True, lambda e: on_epoch(place, e)
    )
    return score_of(trained.epochs[-1].validation), last[0]
