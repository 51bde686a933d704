"""Training of a configuration on inner folds: scores, callbacks and errors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from toxbench import Backbone, EpochRecord, TrainSettings
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.data.protocol import Protocol
from toxbench.data.splits import draw_folds
from toxbench.data.table import read_comments
from toxbench.errors import CellsFailedError
from toxbench.evaluation.thresholds import choose_thresholds
from toxbench.records import WeightsRecord
from toxbench.settings import SplitSettings
from toxbench.training.device import choose_device
from toxbench.training.weights import Weights
from toxbench.tuning.spec import make_inner_data
from toxbench.tuning.trial import Configuration, OnEpoch, TrialResult, objective, train_on_folds
from toxbench.util.arrays import Rows

Score = Callable[[np.ndarray, np.ndarray], float]
SETTINGS = TrainSettings(
    epochs=2, max_length=16, batch_size=8, learning_rate=3e-3, head_learning_rate=3e-2
)


@pytest.fixture
def data(table: Path) -> Protocol:
    comments = read_comments(table)
    return make_inner_data(Protocol(comments, draw_folds(comments)), SplitSettings(), 0)


def make_factory(data: Protocol, checkpoint: Path) -> TrainerFactory:
    weights = Weights(
        WeightsRecord(source="local", label="tiny", identity="tiny"), checkpoint, {},
    )  # fmt: skip
    backbone = Backbone(name="tiny", checkpoint="a/b")
    device = choose_device("cpu", "fp32")
    return TrainerFactory(backbone, weights, data.comments, device, "", keep_module=True)


@pytest.fixture
def factory(data: Protocol, checkpoint: Path) -> TrainerFactory:
    return make_factory(data, checkpoint)


def ignore(position: int, epoch: EpochRecord) -> None:
    """Ignore an epoch."""


def train(
    factory: TrainerFactory, data: Protocol, folds: tuple[int, ...], settings: TrainSettings,
    seed: int, on_epoch: OnEpoch, metric: str = "headline",
) -> TrialResult:  # fmt: skip
    configuration = Configuration(settings, seed, folds)
    return train_on_folds(factory, data, configuration, metric, on_epoch)


def predict(
    factory: TrainerFactory, data: Protocol, fold: int, seed: int = 0, rows: Rows | None = None
) -> np.ndarray:
    """Train on a fold with a trainer; return the probabilities of its validation or other rows."""
    with factory.trainer(SETTINGS, seed) as trainer:
        trainer.train(data.folds[fold], seed, lambda t, p: {}, lambda e: None)
        return trainer.predict(data.folds[fold].validation if rows is None else rows)


def mean_of_headlines(targets: np.ndarray, probabilities: np.ndarray) -> float:
    labels = probabilities >= 0.5
    f1 = f1_score(targets, labels, average="micro", zero_division=0)
    return float(f1 + accuracy_score(targets, labels)) / 2


def micro_average_precision(targets: np.ndarray, probabilities: np.ndarray) -> float:
    return float(average_precision_score(targets.ravel(), probabilities.ravel()))


@pytest.mark.parametrize(
    ("metric", "score_of"),
    [("headline", mean_of_headlines), ("micro_average_precision", micro_average_precision)],
)
def test_score_equals_scikit_learns(
    factory: TrainerFactory, data: Protocol, metric: str, score_of: Score
) -> None:
    result = train(factory, data, (1, 3), SETTINGS, 0, ignore, metric)
    for fold, score in zip((1, 3), result.scores, strict=True):
        targets = data.comments.targets[data.folds[fold].validation]
        expected = score_of(targets, predict(factory, data, fold))
        assert score == pytest.approx(expected, abs=1e-9)


def test_gap_is_train_minus_validation_score(factory: TrainerFactory, data: Protocol) -> None:
    seconds: list[float] = []
    configuration = Configuration(SETTINGS, 0, (1, 3), costs=("gap", "seconds"))
    result = train_on_folds(
        factory, data, configuration, "headline", lambda _, epoch: seconds.append(epoch.seconds)
    )
    gaps = []
    for fold in (1, 3):
        train_rows = data.folds[fold].train
        probabilities = predict(factory, data, fold, rows=train_rows)
        train_score = mean_of_headlines(data.comments.targets[train_rows], probabilities)
        gaps.append(train_score - result.scores[len(gaps)])
    assert result.costs["gap"] == pytest.approx(np.mean(gaps), abs=1e-9)
    assert result.costs["seconds"] >= sum(seconds) / 2 > 0


def test_thresholds_use_validation_rows_of_all_folds(
    factory: TrainerFactory, data: Protocol
) -> None:
    result = train(factory, data, (0, 2), SETTINGS, 0, ignore)
    targets = [data.comments.targets[data.folds[fold].validation] for fold in (0, 2)]
    probabilities = [predict(factory, data, fold) for fold in (0, 2)]
    assert result.thresholds == choose_thresholds(
        np.concatenate(targets), np.concatenate(probabilities)
    )
    assert result.thresholds.keys() == {"0.5", "global", "accuracy", "per-label"}
    assert {len(rule) for rule in result.thresholds.values()} == {3}


def test_on_epoch_gets_position_and_scores(factory: TrainerFactory, data: Protocol) -> None:
    epochs: list[tuple[int, EpochRecord]] = []
    result = train(
        factory, data, (4, 1), SETTINGS, 0, lambda position, epoch: epochs.append((position, epoch))
    )
    assert [(position, e.epoch) for position, e in epochs] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert result.scores == tuple(epochs[i][1].validation["headline"] for i in (1, 3))


def test_result_depends_only_on_the_seed(
    factory: TrainerFactory, data: Protocol, checkpoint: Path
) -> None:
    first = train(factory, data, (0, 1), SETTINGS, 0, ignore)
    assert train(factory, data, (0, 1), SETTINGS, 0, ignore) == first
    fresh_factory = make_factory(data, checkpoint)
    assert train(fresh_factory, data, (0, 1), SETTINGS, 0, ignore) == first
    assert train(factory, data, (0, 1), SETTINGS, 1, ignore) != first


def test_order_of_folds_does_not_change_scores(factory: TrainerFactory, data: Protocol) -> None:
    two_folds = train(factory, data, (0, 1), SETTINGS, 0, ignore)
    one_fold = train(factory, data, (1,), SETTINGS, 0, ignore)
    assert two_folds.scores[1] == one_fold.scores[0]


def test_validation_rows_do_not_influence_training(
    factory: TrainerFactory, data: Protocol, checkpoint: Path
) -> None:
    targets = data.comments.targets.copy()
    targets[data.folds[0].validation] ^= 1
    changed = replace(data, comments=replace(data.comments, codes=targets))
    expected = predict(factory, data, 0)
    probabilities = predict(make_factory(changed, checkpoint), changed, 0)
    assert probabilities.tobytes() == expected.tobytes()


class CallbackError(Exception):
    """Raised by a callback."""


def test_error_of_callback_ends_training(factory: TrainerFactory, data: Protocol) -> None:
    epochs: list[tuple[int, int]] = []

    def stop(position: int, epoch: EpochRecord) -> None:
        epochs.append((position, epoch.epoch))
        if epochs[-1] == (1, 1):
            raise CallbackError

    expected = train(factory, data, (0, 1), SETTINGS, 0, ignore)
    with pytest.raises(CallbackError):
        train(factory, data, (0, 1), SETTINGS, 0, stop)
    assert epochs == [(0, 1), (0, 2), (1, 1)]
    assert train(factory, data, (0, 1), SETTINGS, 0, ignore) == expected


def test_diverged_training_raises_and_leaves_no_state(
    factory: TrainerFactory, data: Protocol
) -> None:
    expected = train(factory, data, (0,), SETTINGS, 0, ignore)
    divergent = SETTINGS.model_copy(update={"learning_rate": 1e30, "clip_norm": 0.0})
    with pytest.raises(CellsFailedError, match="lower the learning rate"):
        train(factory, data, (0,), divergent, 0, ignore)
    assert train(factory, data, (0,), SETTINGS, 0, ignore) == expected


@pytest.mark.parametrize(("score", "value"), [(0.25, 0.25), (0.0, 0.0), (1.0, 1.0), (None, 0.0)])
def test_undefined_score_is_zero(score: float | None, value: float) -> None:
    scores = {"micro_average_precision": score, "headline": 0.9}
    assert objective(scores, "micro_average_precision") == value


def test_one_fold_has_one_score(factory: TrainerFactory, data: Protocol) -> None:
    result = train(factory, data, (2,), SETTINGS, 0, ignore)
    assert isinstance(result, TrialResult)
    assert len(result.scores) == 1
    assert 0.0 < result.scores[0] <= 1.0
