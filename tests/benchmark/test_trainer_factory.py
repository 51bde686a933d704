"""Trainings share a tokenizer, tokens and modules without affecting each other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support import build_classifier, make_comments
from torch import nn

from toxbench import Backbone, TrainSettings
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
MakeFactory = Callable[..., TrainerFactory]


@dataclass(frozen=True, kw_only=True)
class RecordingBackbone(Backbone):
    """Records the names of the methods that are called."""

    calls: list[str] = field(default_factory=list)

    def build(self, weights: Path, label_count: int) -> nn.Module:
        self.calls.append("build")
        return build_classifier(weights, label_count)

    def tokenizer(self, weights: Path) -> "PreTrainedTokenizerBase":
        self.calls.append("tokenizer")
        return super().tokenizer(weights)


@pytest.fixture
def backbone() -> RecordingBackbone:
    return RecordingBackbone(name="recording", checkpoint="a/b")


@pytest.fixture
def comments(table: Path) -> TextDataset:
    return read_comments(table)


@pytest.fixture
def make_factory(
    checkpoint: Path, comments: TextDataset, backbone: RecordingBackbone
) -> MakeFactory:
    """Create a factory for the tiny checkpoint; keyword arguments override fields of `Weights`."""

    def call(keep_module: bool, **weights: Any) -> TrainerFactory:
        record = WeightsRecord(source="local", label="tiny", identity="tiny")
        fields = {"record": record, "folder": checkpoint, "defaults": {}} | weights
        return TrainerFactory(
            backbone, Weights(**fields), comments, CPU, "", keep_module=keep_module
        )

    return call


def predict_untrained(
    factory: TrainerFactory, seed: int, settings: TrainSettings = SETTINGS
) -> bytes:
    """Return predictions of an untrained module, and the next random numbers of torch."""
    with factory.trainer(settings, seed) as trainer:
        noise = torch.rand(4).numpy().tobytes()
        return trainer.predict(np.arange(60)).tobytes() + noise


def predict_trained(
    factory: TrainerFactory, seed: int, settings: TrainSettings = SETTINGS
) -> bytes:
    """Return predictions of a trained module."""
    (fold,) = draw_folds(make_comments(60))
    with factory.trainer(settings, seed) as trainer:
        trainer.train(fold, seed, epoch_scores, lambda e: None)
        return trainer.predict(np.arange(60)).tobytes()


def test_cached_modules_start_like_new_ones(make_factory: MakeFactory) -> None:
    keeping, rebuilding = make_factory(keep_module=True), make_factory(keep_module=False)
    factories = (keeping, keeping, rebuilding, rebuilding, make_factory(keep_module=True))
    predictions = [predict_untrained(factory, 3) for factory in factories]
    assert len(set(predictions)) == 1


def test_cached_modules_train_to_same_bytes(make_factory: MakeFactory) -> None:
    keeping, rebuilding = make_factory(keep_module=True), make_factory(keep_module=False)
    results = [predict_trained(factory, 3) for factory in (keeping, keeping, rebuilding)]
    assert len(set(results)) == 1
    assert results[0] != predict_untrained(rebuilding, 3)


def test_training_does_not_change_cached_module(make_factory: MakeFactory) -> None:
    factory = make_factory(keep_module=True)
    before = predict_untrained(factory, 0)
    predict_trained(factory, 0)
    assert predict_untrained(factory, 0) == before


def test_settings_affect_only_one_training(make_factory: MakeFactory) -> None:
    factory = make_factory(keep_module=True)
    default = predict_trained(factory, 0)
    settings = SETTINGS.model_copy(update={"dropout": 0.6})
    changed = predict_trained(factory, 0, settings)
    assert changed != default
    assert predict_trained(factory, 0) == default
    second_factory = make_factory(keep_module=True)
    assert predict_trained(second_factory, 0, settings) == changed
    assert predict_trained(second_factory, 0) == default


@pytest.mark.parametrize("keep_module", [True, False])
def test_seeds_start_differently(make_factory: MakeFactory, keep_module: bool) -> None:
    factory = make_factory(keep_module=keep_module)
    assert len({predict_untrained(factory, seed) for seed in (0, 1, 2)}) == 3


def test_repeated_seed_starts_the_same(make_factory: MakeFactory) -> None:
    factory = make_factory(keep_module=True)
    first = predict_untrained(factory, 0)
    assert predict_untrained(factory, 1) != first
    assert predict_untrained(factory, 0) == first


def test_cached_module_is_built_once_per_seed(
    make_factory: MakeFactory, backbone: RecordingBackbone
) -> None:
    factory = make_factory(keep_module=True)
    assert backbone.calls == []
    for seed in (0, 0, 0, 1, 1):
        predict_untrained(factory, seed)
    assert sorted(backbone.calls) == ["build", "build", "tokenizer"]


def test_other_modules_are_built_per_training(
    make_factory: MakeFactory, backbone: RecordingBackbone
) -> None:
    factory = make_factory(keep_module=False)
    for seed in (0, 0, 1):
        predict_untrained(factory, seed)
    assert sorted(backbone.calls) == ["build", "build", "build", "tokenizer"]


def test_settings_do_not_rebuild_module(
    make_factory: MakeFactory, backbone: RecordingBackbone
) -> None:
    factory = make_factory(keep_module=True)
    predict_untrained(factory, 0)
    predict_untrained(factory, 0, SETTINGS.model_copy(update={"max_length": 8, "layer_decay": 0.5}))
    assert sorted(backbone.calls) == ["build", "tokenizer"]


def test_table_is_tokenised_once_per_length(
    make_factory: MakeFactory, comments: TextDataset
) -> None:
    factory = make_factory(keep_module=True)
    settings = TrainSettings(max_length=8)
    short, long = factory.tokens(settings), factory.tokens(TrainSettings(max_length=64))
    assert factory.tokens(settings) is short
    assert factory.tokens(settings.model_copy(update={"long_text": "head-tail"})) is not short
    assert short.lengths.max() == 8 < long.lengths.max()
    assert len(short.lengths) == len(long.lengths) == len(comments)


@dataclass(frozen=True, kw_only=True)
class ChangedTokenizer(Backbone):
    """Changes its tokenizer after loading it."""

    change: Callable[["PreTrainedTokenizerBase"], object]

    def tokenizer(self, weights: Path) -> "PreTrainedTokenizerBase":
        tokenizer = super().tokenizer(weights)
        self.change(tokenizer)
        return tokenizer


def cut_left(tokenizer: "PreTrainedTokenizerBase") -> None:
    tokenizer.truncation_side = "left"


def add_token(tokenizer: "PreTrainedTokenizerBase") -> None:
    tokenizer.add_tokens(["ou"])


def replace_class(tokenizer: "PreTrainedTokenizerBase") -> None:
    class Reversed(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, text: list[str], **options: object) -> object:
            return super().__call__([word[::-1] for word in text], **options)

    tokenizer.__class__ = Reversed


@pytest.mark.faults(59)
@pytest.mark.parametrize("change", [cut_left, add_token, replace_class])
def test_changed_tokenizer_has_its_own_tokens(
    checkpoint: Path, comments: TextDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: Callable[["PreTrainedTokenizerBase"], object],
) -> None:  # fmt: skip
    weights = Weights(WeightsRecord(source="local", label="", identity=""), checkpoint, {})

    def tokens(change: Callable[["PreTrainedTokenizerBase"], object], cache: str) -> list[int]:
        monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / cache))
        backbone = ChangedTokenizer(name="mine", checkpoint="a/b", change=change)
        factory = TrainerFactory(backbone, weights, comments, CPU, "")
        ids: list[int] = factory.tokens(TrainSettings(max_length=4)).ids.tolist()
        return ids

    plain = tokens(lambda tokenizer: None, "cache")
    assert tokens(change, "cache") == tokens(change, "empty") != plain


@pytest.mark.parametrize("keep_module", [True, False])
def test_trainings_restore_random_state(make_factory: MakeFactory, keep_module: bool) -> None:
    factory = make_factory(keep_module=keep_module)
    before = torch.get_rng_state()
    for _ in range(2):
        predict_trained(factory, 5)
        assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="ended early"), factory.trainer(SETTINGS, 5):
        raise RuntimeError("ended early")
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_weights_are_an_error(make_factory: MakeFactory) -> None:
    with pytest.raises(PluginError, match="weights of recording were not downloaded"):
        predict_untrained(make_factory(keep_module=True, folder=None), 0)
