"""Learning rates, weight decay and dropout of single layers, on real architectures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import build_classifier, write_checkpoint
from torch import nn

from toxbench import TrainSettings
from toxbench.data.tokenization import Tokens
from toxbench.errors import PluginError
from toxbench.plugin.registry import Registry
from toxbench.training.device import choose_device
from toxbench.training.head import Head
from toxbench.training.optimizer import parameter_groups, set_dropout
from toxbench.training.trainer import Trainer

LABELS = 3
ARCHITECTURES = ("bert", "distilbert", "roberta")
HEAD = Head(("classifier", "pre_classifier", "head", "score"))
BODY_RATE, HEAD_RATE = 1e-3, 7e-3
# Prefixes of each body: the embeddings, the list of layers, and the rest, if there is any.
PREFIXES = {
    "bert": ("bert.embeddings.", "bert.encoder.layer.", "bert.pooler."),
    "distilbert": ("distilbert.embeddings.", "distilbert.transformer.layer.", None),
    "roberta": ("roberta.embeddings.", "roberta.encoder.layer.", None),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("architectures")
    return {name: write_checkpoint(folder / name, name) for name in ARCHITECTURES}


def build(name: str, checkpoints: dict[str, Path]) -> nn.Module:
    backbone = Registry.discover().backbone(name).item
    assert backbone.head == HEAD.names
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return backbone.build(checkpoints[name], LABELS)


def rates(module: nn.Module, head: Head = HEAD, **changes: Any) -> dict[str, float]:
    """Return parameter name -> learning rate; assert that each parameter is in one group."""
    settings = TrainSettings(
        **({"learning_rate": BODY_RATE, "head_learning_rate": HEAD_RATE} | changes)
    )
    groups = parameter_groups(module, head, settings)
    grouped = [(id(p), group["lr"]) for group in groups for p in group["params"]]
    trainable = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    assert len(grouped) == len(dict(grouped)) == len(trainable)
    return {trainable[key]: rate for key, rate in grouped}


# --- learning rates


@pytest.mark.parametrize("decay", [0.5, 0.9])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layer_rates_decay_towards_the_embeddings(
    checkpoints: dict[str, Path], name: str, decay: float
) -> None:
    actual = rates(build(name, checkpoints), layer_decay=decay)
    embeddings, layer, pooler = PREFIXES[name]
    expected = {
        embeddings: BODY_RATE * decay**2,
        f"{layer}0.": BODY_RATE * decay,
        f"{layer}1.": BODY_RATE,
    }
    if pooler:
        expected[pooler] = BODY_RATE
    for parameter, rate in actual.items():
        prefixes = [prefix for prefix in expected if parameter.startswith(prefix)]
        if HEAD.contains(parameter):
            assert rate == HEAD_RATE
            assert prefixes == []
        else:
            assert rate == pytest.approx(expected[prefixes[0]], rel=1e-12)
            del prefixes[0]
            assert prefixes == []
    for prefix in expected:
        assert any(parameter.startswith(prefix) for parameter in actual)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_body_has_one_rate_without_layer_decay(checkpoints: dict[str, Path], name: str) -> None:
    actual = rates(build(name, checkpoints))
    body = {rate for parameter, rate in actual.items() if not HEAD.contains(parameter)}
    assert body == {BODY_RATE}
    assert set(actual.values()) == {BODY_RATE, HEAD_RATE}


def test_submodule_of_the_body_can_be_new(checkpoint: Path) -> None:
    head = Head(("classifier", "bert.pooler"))
    actual = rates(build_classifier(checkpoint, LABELS), head, layer_decay=0.5)
    assert actual["classifier.weight"] == actual["bert.pooler.dense.bias"] == HEAD_RATE
    assert actual["bert.encoder.layer.1.output.dense.weight"] == BODY_RATE
    assert actual["bert.embeddings.word_embeddings.weight"] == BODY_RATE / 4


def test_more_than_ten_layers_are_ordered_numerically() -> None:
    module = nn.ModuleDict(
        {"layers": nn.ModuleList(nn.Linear(1, 1) for _ in range(12)), "head": nn.Linear(1, 1)}
    )
    actual = rates(module, Head(("head",)), layer_decay=0.5)
    assert [actual[f"layers.{i}.weight"] for i in range(12)] == [
        pytest.approx(BODY_RATE * 0.5 ** (11 - i)) for i in range(12)
    ]


def test_final_norm_has_the_top_rate() -> None:
    module = nn.ModuleDict(
        {
            "word_embeddings": nn.Embedding(3, 1),
            "layers": nn.ModuleList(nn.Linear(1, 1) for _ in range(2)),
            "final_norm": nn.LayerNorm(1),
            "head": nn.Linear(1, 1),
        }
    )
    actual = rates(module, Head(("head",)), layer_decay=0.5)
    assert actual["final_norm.weight"] == BODY_RATE
    assert actual["word_embeddings.weight"] == BODY_RATE / 4


def test_module_list_in_the_head_is_ignored() -> None:
    module = nn.ModuleDict(
        {
            "layers": nn.ModuleList(nn.Linear(1, 1) for _ in range(2)),
            "head": nn.ModuleList(nn.Linear(1, 1) for _ in range(5)),
        }
    )
    actual = rates(module, Head(("head",)), layer_decay=0.5)
    assert {rate for name, rate in actual.items() if name.startswith("head")} == {HEAD_RATE}
    assert [actual[f"layers.{i}.weight"] for i in range(2)] == [BODY_RATE / 2, BODY_RATE]


def test_module_list_inside_a_layer_is_ignored() -> None:
    """Layers of experts or blocks can have more of them than there are layers."""
    layers = [nn.ModuleList(nn.Linear(1, 1) for _ in range(4)) for _ in range(2)]
    module = nn.ModuleDict({"layers": nn.ModuleList(layers), "head": nn.Linear(1, 1)})
    actual = rates(module, Head(("head",)), layer_decay=0.5)
    for layer, rate in enumerate((BODY_RATE / 2, BODY_RATE)):
        assert {actual[f"layers.{layer}.{i}.weight"] for i in range(4)} == {rate}


def test_embedding_in_head_has_head_rate() -> None:
    head = nn.ModuleDict({"label_embeddings": nn.Embedding(3, 1)})
    module = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(1, 1)]), "head": head})
    actual = rates(module, Head(("head",)), layer_decay=0.5)
    assert actual["head.label_embeddings.weight"] == HEAD_RATE


def test_layer_decay_without_layers_is_refused() -> None:
    module = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    with pytest.raises(PluginError, match=r"layer_decay below 1 needs .*ModuleList"):
        rates(module, Head(("head",)), layer_decay=0.9)
    assert set(rates(module, Head(("head",))).values()) == {BODY_RATE, HEAD_RATE}


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_module_without_head_is_refused(decay: float) -> None:
    module = nn.ModuleDict({"fc": nn.ModuleList([nn.Linear(2, 2)])})
    with pytest.raises(PluginError, match=r"none of the head attributes classifier.*head="):
        parameter_groups(module, Head(("classifier",)), TrainSettings(layer_decay=decay))


# --- weight decay, frozen and shared parameters


def test_head_body_and_vectors_have_separate_groups() -> None:
    module = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    settings = TrainSettings(learning_rate=1e-5, head_learning_rate=1e-3, weight_decay=0.1)
    groups = parameter_groups(module, Head(("head",)), settings)
    actual = {(g["lr"], g["weight_decay"], g["params"][0].ndim) for g in groups}
    assert actual == {(1e-5, 0.1, 2), (1e-5, 0.0, 1), (1e-3, 0.1, 2), (1e-3, 0.0, 1)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_only_matrices_are_decayed(checkpoints: dict[str, Path], name: str) -> None:
    settings = TrainSettings(weight_decay=0.1, layer_decay=0.5)
    for group in parameter_groups(build(name, checkpoints), HEAD, settings):
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.1}


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_frozen_parameters_are_not_grouped(checkpoints: dict[str, Path], decay: float) -> None:
    module = build("bert", checkpoints)
    for parameter in module.bert.embeddings.parameters():  # type: ignore[union-attr, operator]
        parameter.requires_grad = False
    actual = rates(module, layer_decay=decay)
    assert actual
    assert not any("embeddings" in name for name in actual)


def test_shared_parameter_is_in_one_group() -> None:
    shared = nn.Linear(2, 2)
    module = nn.ModuleDict({"layers": nn.ModuleList([shared, shared]), "head": nn.Linear(2, 2)})
    assert len(rates(module, Head(("head",)), layer_decay=0.5)) == 4


# --- dropout


def forward(module: nn.Module) -> torch.Tensor:
    """Return the logits of two comments of different length."""
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 7, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        output = module(input_ids=ids, attention_mask=mask)
    logits: torch.Tensor = getattr(output, "logits", output)
    return logits


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dropout_zero_disables_every_dropout(checkpoints: dict[str, Path], name: str) -> None:
    module = build(name, checkpoints)
    expected = forward(module.eval())
    assert not torch.allclose(forward(module.train()), expected)
    set_dropout(module, 0.0)
    torch.testing.assert_close(forward(module.train()), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_trainer_sets_dropout_of_every_layer(checkpoints: dict[str, Path], name: str) -> None:
    module = build(name, checkpoints)
    before = [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)]
    make_trainer(module, dropout=None)
    assert [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)] == before
    make_trainer(module, dropout=0.37)
    after = [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)]
    assert after == [0.37] * len(before)
    assert len(after) >= 2


def make_trainer(module: nn.Module, **settings: Any) -> Trainer:
    """Return a trainer of a module, which is changed in place."""
    ids, cut_tokens = np.array([2, 3], dtype=np.int32), np.zeros(1, dtype=np.int32)
    tokens = Tokens(ids, np.array([0, 2]), np.array([0, 1]), 0, cut_tokens)
    targets = np.zeros((1, LABELS), dtype=np.uint8)
    device = choose_device("cpu", "fp32")
    return Trainer(module, HEAD, tokens, targets, TrainSettings(**settings), device)


def test_predictions_do_not_depend_on_dropout(checkpoints: dict[str, Path]) -> None:
    trainers = [make_trainer(build("bert", checkpoints), dropout=p) for p in (None, 0.0, 0.9)]
    assert len({trainer.predict(np.array([0])).tobytes() for trainer in trainers}) == 1


def test_dropout_without_dropout_layers_is_refused() -> None:
    module = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    with pytest.raises(PluginError, match=r"no nn\.Dropout"):
        set_dropout(module, 0.1)
    set_dropout(module, None)
