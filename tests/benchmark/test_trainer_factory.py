"""What trainings share: built once, and never changed by any of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support import make_comments
from torch import nn

from toxbench import Backbone, TrainSettings, first_token_classifier
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.data.splits import draw_folds
from toxbench.data.table import TextDataset, read_comments
from toxbench.errors import PluginError
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.records import WeightsRecord
from toxbench.training.device import choose_device
from toxbench.training.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CPU = choose_device("cpu", "fp32")
SETTINGS = TrainSettings(epochs=2, max_length=16, learning_rate=1e-3, head_learning_rate=1e-2)
Make = Callable[..., TrainerFactory]


@dataclass(frozen=True, kw_only=True)
class Counting(Backbone):
    """Counts what it is asked for."""

    calls: list[str] = field(default_factory=list)

    def build(self, weights: Path, label_count: int) -> nn.Module:
        self.calls.append("build")
        return first_token_classifier(weights, label_count)

    def tokenizer(self, weights: Path) -> "PreTrainedTokenizerBase":
        self.calls.append("tokenizer")
        return super().tokenizer(weights)


@pytest.fixture
def backbone() -> Counting:
    return Counting(name="counting", checkpoint="a/b")


@pytest.fixture
def comments(table: Path) -> TextDataset:
    return read_comments(table)


@pytest.fixture
def make(checkpoint: Path, comments: TextDataset, backbone: Counting) -> Make:
    """Make a workbench of the tiny checkpoint; keywords override its weights' fields."""

    def call(keep_module: bool, **weights: Any) -> TrainerFactory:
        record = WeightsRecord(source="local", label="tiny", identity="tiny")
        found = Weights(**({"record": record, "folder": checkpoint, "defaults": {}} | weights))
        return TrainerFactory(backbone, found, comments, CPU, keep_module=keep_module)

    return call


def start(bench: TrainerFactory, seed: int, settings: TrainSettings = SETTINGS) -> bytes:
    """Return what an untrained module predicts, and how torch's generator goes on."""
    with bench.trainer(settings, seed) as trainer:
        noise = torch.rand(4).numpy().tobytes()
        return trainer.predict(np.arange(60)).tobytes() + noise


def trained(bench: TrainerFactory, seed: int, settings: TrainSettings = SETTINGS) -> bytes:
    """Return what a trained module predicts."""
    (fold,) = draw_folds(make_comments(60))
    with bench.trainer(settings, seed) as trainer:
        trainer.train(fold, seed, epoch_scores, lambda s: True, lambda e: None)
        return trainer.predict(np.arange(60)).tobytes()


def test_a_kept_module_starts_like_one_that_is_built_again(make: Make) -> None:
    kept, fresh = make(keep_module=True), make(keep_module=False)
    starts = [start(bench, 3) for bench in (kept, kept, fresh, fresh, make(keep_module=True))]
    assert len(set(starts)) == 1


def test_a_kept_module_is_trained_to_the_same_bytes(make: Make) -> None:
    kept, fresh = make(keep_module=True), make(keep_module=False)
    results = [trained(bench, 3) for bench in (kept, kept, fresh)]
    assert len(set(results)) == 1
    assert results[0] != start(fresh, 3)


def test_training_leaves_the_kept_module_as_it_was(make: Make) -> None:
    bench = make(keep_module=True)
    before = start(bench, 0)
    trained(bench, 0)
    assert start(bench, 0) == before


def test_a_setting_of_one_training_does_not_reach_the_next(make: Make) -> None:
    bench = make(keep_module=True)
    plain = trained(bench, 0)
    other = trained(bench, 0, SETTINGS.model_copy(update={"dropout": 0.6}))
    assert other != plain
    assert trained(bench, 0) == plain
    first = make(keep_module=True)
    assert trained(first, 0, SETTINGS.model_copy(update={"dropout": 0.6})) == other
    assert trained(first, 0) == plain


@pytest.mark.parametrize("keep_module", [True, False])
def test_another_seed_starts_otherwise(make: Make, keep_module: bool) -> None:
    bench = make(keep_module=keep_module)
    assert len({start(bench, seed) for seed in (0, 1, 2)}) == 3


def test_a_seed_that_comes_back_starts_as_before(make: Make) -> None:
    bench = make(keep_module=True)
    first = start(bench, 0)
    assert start(bench, 1) != first
    assert start(bench, 0) == first


def test_a_module_is_built_once_for_a_seed_and_the_tokenizer_once(
    make: Make, backbone: Counting
) -> None:
    bench = make(keep_module=True)
    assert backbone.calls == []
    for seed in (0, 0, 0, 1, 1):
        start(bench, seed)
    assert sorted(backbone.calls) == ["build", "build", "tokenizer"]


def test_without_keeping_a_module_is_built_for_each_training(
    make: Make, backbone: Counting
) -> None:
    bench = make(keep_module=False)
    for seed in (0, 0, 1):
        start(bench, seed)
    assert sorted(backbone.calls) == ["build", "build", "build", "tokenizer"]


def test_other_settings_need_no_other_module(make: Make, backbone: Counting) -> None:
    bench = make(keep_module=True)
    start(bench, 0)
    start(bench, 0, SETTINGS.model_copy(update={"max_length": 8, "layer_decay": 0.5}))
    assert sorted(backbone.calls) == ["build", "tokenizer"]


def test_the_table_is_tokenised_once_for_each_length(make: Make, comments: TextDataset) -> None:
    bench = make(keep_module=True)
    short, long = bench.tokens(8), bench.tokens(64)
    assert bench.tokens(8) is short
    assert short.lengths.max() == 8 < long.lengths.max()
    assert len(short.lengths) == len(long.lengths) == len(comments)


@pytest.mark.parametrize("keep_module", [True, False])
def test_the_callers_random_numbers_go_on_as_if_nothing_was_built(
    make: Make, keep_module: bool
) -> None:
    bench = make(keep_module=keep_module)
    before = torch.get_rng_state()
    for _ in range(2):
        trained(bench, 5)
        assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="ended early"), bench.trainer(SETTINGS, 5):
        raise RuntimeError("ended early")
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_with_a_build_of_their_own_are_built_by_it(make: Make, backbone: Counting) -> None:
    asked: list[tuple[Path, int]] = []

    def build(weights: Path, label_count: int) -> nn.Module:
        asked.append((weights, label_count))
        return first_token_classifier(weights, label_count)

    bench = make(keep_module=True, build=build)
    start(bench, 0)
    start(bench, 0)
    assert [count for _, count in asked] == [3]
    assert backbone.calls == ["tokenizer"]


def test_weights_that_were_never_fetched_are_an_error(make: Make) -> None:
    with pytest.raises(PluginError, match="counting were planned but never fetched"):
        start(make(keep_module=True, folder=None), 0)
