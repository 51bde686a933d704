"""One configuration on inner folds: what is scored, what is heard, and what ends it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from toxbench import Backbone, EpochRecord, TrainSettings, first_token_classifier
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
from toxbench.tuning.definition import InnerData, inner_data
from toxbench.tuning.trial import Result, score_of, train_on_folds

SETTINGS = TrainSettings(
    epochs=2, max_length=16, batch_size=8, learning_rate=3e-3, head_learning_rate=3e-2
)


@pytest.fixture
def data(table: Path) -> InnerData:
    comments = read_comments(table)
    return inner_data(Protocol(comments, draw_folds(comments)), SplitSettings(), 0)


def make_bench(data: InnerData, checkpoint: Path) -> TrainerFactory:
    weights = Weights(
        WeightsRecord(source="local", label="tiny", identity="tiny"), checkpoint, {},
        build=first_token_classifier,
    )  # fmt: skip
    backbone = Backbone(name="tiny", checkpoint="a/b")
    device = choose_device("cpu", "fp32")
    return TrainerFactory(backbone, weights, data.comments, device, keep_module=True)


@pytest.fixture
def bench(data: InnerData, checkpoint: Path) -> TrainerFactory:
    return make_bench(data, checkpoint)


def ignore(place: int, epoch: EpochRecord) -> None:
    """Hear nothing."""


def probabilities(bench: TrainerFactory, data: InnerData, fold: int, seed: int = 0) -> np.ndarray:
    """Train on a fold by hand and return what the last epoch predicts for its validation rows."""
    with bench.trainer(SETTINGS, seed) as trainer:
        trainer.train(data.folds[fold], seed, lambda t, p: {}, lambda s: True, lambda e: None)
        return trainer.predict(data.folds[fold].validation)


def test_the_score_is_scikit_learns_micro_average_precision_of_the_last_epoch(
    bench: TrainerFactory, data: InnerData
) -> None:
    result = train_on_folds(bench, data, (1, 3), SETTINGS, 0, ignore)
    for fold, score in zip((1, 3), result.scores, strict=True):
        truth = data.comments.targets[data.folds[fold].validation]
        predicted = probabilities(bench, data, fold)
        expected = average_precision_score(truth.ravel(), predicted.ravel())
        assert score == pytest.approx(expected, abs=1e-9)


def test_thresholds_are_chosen_on_the_validation_rows_of_all_its_folds(
    bench: TrainerFactory, data: InnerData
) -> None:
    result = train_on_folds(bench, data, (0, 2), SETTINGS, 0, ignore)
    truth = [data.comments.targets[data.folds[fold].validation] for fold in (0, 2)]
    predicted = [probabilities(bench, data, fold) for fold in (0, 2)]
    assert result.thresholds == choose_thresholds(np.concatenate(truth), np.concatenate(predicted))
    assert result.thresholds.keys() == {"0.5", "global", "per-label"}
    assert {len(rule) for rule in result.thresholds.values()} == {3}


def test_every_epoch_is_heard_with_its_folds_place_and_score(
    bench: TrainerFactory, data: InnerData
) -> None:
    heard: list[tuple[int, EpochRecord]] = []
    result = train_on_folds(
        bench, data, (4, 1), SETTINGS, 0, lambda place, epoch: heard.append((place, epoch))
    )
    assert [(place, epoch.epoch) for place, epoch in heard] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert result.scores == tuple(score_of(heard[i][1].validation) for i in (1, 3))


def test_the_last_epoch_counts_whatever_the_selection_says(
    bench: TrainerFactory, data: InnerData
) -> None:
    best, last = (
        train_on_folds(bench, data, (0,), SETTINGS.model_copy(update={"selection": s}), 0, ignore)
        for s in ("best", "last")
    )
    assert best == last


def test_the_same_training_gives_the_same_result_and_another_seed_does_not(
    bench: TrainerFactory, data: InnerData, checkpoint: Path
) -> None:
    first = train_on_folds(bench, data, (0, 1), SETTINGS, 0, ignore)
    assert train_on_folds(bench, data, (0, 1), SETTINGS, 0, ignore) == first
    assert train_on_folds(make_bench(data, checkpoint), data, (0, 1), SETTINGS, 0, ignore) == first
    assert train_on_folds(bench, data, (0, 1), SETTINGS, 1, ignore) != first


def test_a_fold_is_trained_the_same_alone_and_after_another(
    bench: TrainerFactory, data: InnerData
) -> None:
    both = train_on_folds(bench, data, (0, 1), SETTINGS, 0, ignore)
    alone = train_on_folds(bench, data, (1,), SETTINGS, 0, ignore)
    assert both.scores[1] == alone.scores[0]


def test_a_folds_validation_rows_have_no_influence_on_its_training(
    bench: TrainerFactory, data: InnerData, checkpoint: Path
) -> None:
    targets = data.comments.targets.copy()
    targets[data.folds[0].validation] ^= 1
    spoiled = replace(data, comments=replace(data.comments, targets=targets))
    expected = probabilities(bench, data, 0)
    other = probabilities(make_bench(spoiled, checkpoint), spoiled, 0)
    assert other.tobytes() == expected.tobytes()


class EnoughError(Exception):
    """Raised by a listener."""


def test_what_a_listener_raises_ends_the_training(bench: TrainerFactory, data: InnerData) -> None:
    heard: list[tuple[int, int]] = []

    def stop(place: int, epoch: EpochRecord) -> None:
        heard.append((place, epoch.epoch))
        if heard[-1] == (1, 1):
            raise EnoughError

    expected = train_on_folds(bench, data, (0, 1), SETTINGS, 0, ignore)
    with pytest.raises(EnoughError):
        train_on_folds(bench, data, (0, 1), SETTINGS, 0, stop)
    assert heard == [(0, 1), (0, 2), (1, 1)]
    assert train_on_folds(bench, data, (0, 1), SETTINGS, 0, ignore) == expected


def test_a_training_that_diverges_says_so_and_spoils_nothing(
    bench: TrainerFactory, data: InnerData
) -> None:
    expected = train_on_folds(bench, data, (0,), SETTINGS, 0, ignore)
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30, "clip_norm": 0.0})
    with pytest.raises(CellsFailedError, match="lower the learning rate"):
        train_on_folds(bench, data, (0,), wild, 0, ignore)
    assert train_on_folds(bench, data, (0,), SETTINGS, 0, ignore) == expected


@pytest.mark.parametrize(("score", "value"), [(0.25, 0.25), (0.0, 0.0), (1.0, 1.0), (None, 0.0)])
def test_a_score_that_is_undefined_counts_as_nothing(score: float | None, value: float) -> None:
    assert score_of({"micro_average_precision": score, "headline": 0.9}) == value


def test_a_result_of_one_fold_has_one_score(bench: TrainerFactory, data: InnerData) -> None:
    result = train_on_folds(bench, data, (2,), SETTINGS, 0, ignore)
    assert isinstance(result, Result)
    assert len(result.scores) == 1
    assert 0.0 < result.scores[0] <= 1.0
