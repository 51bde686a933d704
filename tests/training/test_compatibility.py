"""Weights that do not fit the model, the head or the tokenizer are found before training."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from support import make_comments, write_checkpoint
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from toxbench import Backbone, StandIn, TrainSettings
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.errors import PluginError, SettingsError, ToxbenchError
from toxbench.plugin.registry import Registry
from toxbench.testing import write_checkpoint as write_architecture
from toxbench.training.compatibility import inspect
from toxbench.training.device import choose_device
from toxbench.training.trainer import Trainer
from toxbench.training.weights import Weights, WeightsChoice, WeightsFinder

pytestmark = pytest.mark.slow

BERT = Backbone(name="mine", checkpoint="a/b")
SETTINGS = TrainSettings(epochs=1, max_length=16, head_init="random", precision="fp32")
KEEP_HEAD = SETTINGS.model_copy(update={"head_init": "checkpoint"})
LABELS = 4  # of `make_comments`
QUERY = "encoder.layer.0.attention.self.query.weight"
Rename = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Encoder(Backbone):
    """A plugin that builds its module itself."""

    def build(self, weights: Path, label_count: int) -> nn.Module:
        return Classifier(AutoModel.from_pretrained(weights), label_count)


class Classifier(nn.Module):
    def __init__(self, encoder: nn.Module, label_count: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(16, label_count)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids, attention_mask).last_hidden_state
        logits: torch.Tensor = self.classifier(hidden[:, 0])
        return logits


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "changed"))


def rename_tensors(folder: Path, new_name: Rename) -> None:
    path = folder / "model.safetensors"
    tensors = {new_name(name): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, **values}), encoding="utf-8")


def save_classifier(folder: Path, labels: int) -> nn.Module:
    """Replace the weights of a folder by a classifier for some labels."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)
    model.save_pretrained(folder)
    return model


def find(folder: Path, backbone: Backbone = BERT) -> Weights:
    return WeightsFinder(WeightsChoice("auto", {backbone.name: folder})).find(backbone)


def inspected(
    folder: Path, backbone: Backbone = BERT, settings: TrainSettings = SETTINGS
) -> Weights:
    return inspect(backbone, find(folder, backbone), LABELS, settings)


def untrained(
    folder: Path, backbone: Backbone = BERT, settings: TrainSettings = SETTINGS
) -> Trainer:
    """Return the trainer of a module before its first step."""
    texts = [" ".join(["you fool", *["again"] * (row % 7)]) for row in range(40)]
    comments = make_comments(40, texts=texts)
    cpu = choose_device("cpu", "fp32")
    factory = TrainerFactory(backbone, find(folder, backbone), comments, cpu, "toxbench")
    with factory.trainer(settings, seed=0) as trainer:
        return trainer


def body(trainer: Trainer) -> dict[str, torch.Tensor]:
    parameters = trainer.module.named_parameters()
    return {name: p.detach() for name, p in parameters if "classifier" not in name}


@pytest.mark.faults(61)
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_known_prefixes_are_left_out(checkpoint: Path, folder: Path, prefix: str) -> None:
    rename_tensors(folder, lambda name: prefix + name)
    assert f"prefix {prefix} of all tensors" in " ".join(inspected(folder).notes)
    expected = body(untrained(checkpoint))
    for name, values in body(untrained(folder)).items():
        assert torch.equal(values, expected[name]), name


@pytest.mark.faults(61)
@pytest.mark.parametrize(
    ("new_name", "count"),
    [
        (lambda name: f"model.{name}", "0 of 37"),
        (lambda name: name.replace("layer.1.", "layer.one."), "21 of 37"),
    ],
)
def test_names_that_do_not_fit_are_refused(folder: Path, new_name: Rename, count: str) -> None:
    rename_tensors(folder, new_name)
    with pytest.raises(SettingsError) as caught:
        inspected(folder)
    (line,) = str(caught.value).splitlines()
    assert f"{count} tensors of the encoder fit" in line
    assert line.count("bert.e") == 3  # names


@pytest.mark.faults(61)
def test_stand_in_and_hub_are_checked_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = Registry.built_in().backbone("bert").item
    assert bert.stand_in is not None
    stand_in = StandIn(
        note="renamed",
        config=bert.stand_in.config,
        convert=lambda tensors: {f"{name}.old": tensor for name, tensor in tensors.items()},
    )
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / "cache"))
    backbone = Backbone(name="bert", checkpoint="owner/bert", stand_in=stand_in)
    weights = WeightsFinder(WeightsChoice("stand-in")).find(backbone)
    with pytest.raises(SettingsError, match=r"stand-in: renamed: 0 of \d+ tensors"):
        inspect(backbone, weights, LABELS, SETTINGS)
    rename_tensors(folder, lambda name: f"{name}.old")
    repository = tmp_path / "hub" / "models--owner--bert"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456789")
    shutil.copytree(folder, repository / "snapshots" / "0123456789")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    weights = WeightsFinder(WeightsChoice("hub")).find(backbone)
    with pytest.raises(SettingsError, match="owner/bert@0123456: 0 of 37 tensors"):
        inspect(backbone, weights, LABELS, SETTINGS)


@pytest.mark.faults(61)
def test_own_build_of_a_plugin_is_checked(folder: Path) -> None:
    plugin = Encoder(name="plugin", checkpoint="a/b")
    rename_tensors(folder, lambda name: name.replace("layer.1.", "layer.one."))
    inspected(folder, plugin)  # the plugin may use the other layer only
    with pytest.raises(SettingsError, match=r"plugin from folder changed.*: 21 of 37 tensors"):
        untrained(folder, plugin)
    rename_tensors(folder, lambda name: f"module.{name}")
    with pytest.raises(SettingsError, match="0 of 37 tensors"):
        inspected(folder, plugin)


@pytest.mark.faults(61)
def test_shapes_that_differ_name_both_shapes(folder: Path) -> None:
    change_config(folder, vocab_size=99)
    rows = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"].shape[0]
    message = rf"36 of 37 .*word_embeddings\.weight \(\[{rows}, 16\], not \[99, 16\]\)"
    for backbone in (BERT, Encoder(name="plugin", checkpoint="a/b")):
        with pytest.raises(SettingsError, match=message):
            untrained(folder, backbone)


@pytest.mark.faults(61)
def test_other_architecture_is_refused_if_declared(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "distil", "distilbert")
    assert inspected(folder).record.label.endswith("(distilbert)")
    with pytest.raises(SettingsError, match="the architecture is distilbert, but bert needs bert"):
        inspected(folder, Registry.built_in().backbone("bert").item)


def test_every_built_in_backbone_declares_its_architecture() -> None:
    backbones = Registry.built_in().backbones
    assert all(registered.item.model_type for registered in backbones.values())


@pytest.mark.faults(61)
def test_missing_pooler_belongs_to_the_head(folder: Path) -> None:
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    assert inspected(folder).notes == ("new like the head: bert.pooler.dense",)
    trainer = untrained(folder)
    assert trainer._head.contains("bert.pooler.dense.weight")
    assert not trainer._head.contains(f"bert.{QUERY}")


@pytest.mark.faults(62)
def test_stored_head_for_other_labels_is_replaced(folder: Path) -> None:
    stored = dict(save_classifier(folder, 5).named_parameters())
    assert inspected(folder).notes == ("a new head replaces that for 5 labels",)
    trainer = untrained(folder)
    assert torch.equal(body(trainer)[f"bert.{QUERY}"], stored[f"bert.{QUERY}"])
    with pytest.raises(SettingsError, match="no head for these labels; leave out --keep-head"):
        inspected(folder, settings=KEEP_HEAD)


@pytest.mark.faults(62)
def test_stored_head_is_kept_only_on_request(folder: Path) -> None:
    stored = dict(save_classifier(folder, LABELS).named_parameters())["classifier.weight"]
    assert "--keep-head keeps it" in " ".join(inspected(folder).notes)
    assert "head of the checkpoint is kept" in " ".join(inspected(folder, BERT, KEEP_HEAD).notes)
    new, kept = (
        dict(untrained(folder, BERT, settings).module.named_parameters())["classifier.weight"]
        for settings in (SETTINGS, KEEP_HEAD)
    )
    assert torch.equal(kept, stored)
    assert not torch.isclose(new, stored).any()


@pytest.mark.faults(63)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(folder: Path, value: float) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[QUERY][0, 0] = value
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(SettingsError, match=rf"bert\.{QUERY} holds NaN or infinity") as caught:
        untrained(folder)
    assert "learning rate" not in str(caught.value)


@pytest.mark.faults(64)
def test_roberta_has_fewer_positions_than_rows(tmp_path: Path) -> None:
    sizes = {"max_position_embeddings": 40, "pad_token_id": 1}
    roberta = write_architecture(tmp_path / "roberta", "roberta", **sizes)
    bert = write_architecture(tmp_path / "bert", "bert", **sizes)
    assert inspected(roberta).positions == 38  # positions are counted from padding_idx + 1 = 2
    assert inspected(bert).positions == 40


@pytest.mark.faults(64)
def test_tokenizer_larger_than_embedding_is_refused(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    model.resize_token_embeddings(20)
    model.save_pretrained(folder)
    with pytest.raises(SettingsError, match=r"tokenizer has \d+ tokens, but .* only 20 rows"):
        inspected(folder)


@pytest.mark.faults(65)
def test_decoder_reads_a_row_without_its_padding(tmp_path: Path) -> None:
    folder = write_architecture(tmp_path / "gpt2", "gpt2")
    for pad_id in (None, 7):  # of the configuration, while the tokenizer has none
        change_config(folder, pad_token_id=pad_id)
        trainer = untrained(folder)
        together = trainer.predict(np.arange(40))
        alone = np.concatenate([trainer.predict(np.array([row])) for row in range(40)])
        np.testing.assert_allclose(alone, together, atol=1e-6)


@pytest.mark.faults(65)
def test_tokenizer_without_padding_is_refused(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    special = {name: None for name in config if name.endswith("_token")}
    path.write_text(json.dumps(config | special | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(PluginError, match="the tokenizer has no token to pad with"):
        inspected(folder)


def test_errors_of_libraries_become_one_line(folder: Path) -> None:
    change_config(folder, num_attention_heads=3)
    with pytest.raises(ToxbenchError, match=r"config\.json cannot be used: ValueError") as caught:
        inspected(folder)
    assert "\n" not in str(caught.value)
