"""The start of the head from a linear probe, the probe as a candidate, and LoRA."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from support import build_classifier, write_checkpoint
from torch import nn

import toxbench
from toxbench.errors import PluginError
from toxbench.store.cells import find_store
from toxbench.training.head import PENALTIES, Head, choose_penalty, fit_probe, set_identity
from toxbench.training.parameters import add_adapters, merge_adapters
from toxbench.util.arrays import UNLABELLED

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
HEAD = Head(("classifier", "pre_classifier"))


def make_features() -> tuple[np.ndarray, np.ndarray]:
    """Return 80 rows of 6 features, and 4 labels: two to learn, none positive, all positive."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 6)).astype(np.float32)
    targets = (features[:, :4] + rng.normal(size=(80, 4)) > 0).astype(np.uint8)
    targets[:, 2], targets[:, 3] = 0, 1
    return features, targets


def test_probe_is_a_regression_for_each_label() -> None:
    features, targets = make_features()
    weight, bias = fit_probe(features, targets, 0.1)
    for label in (0, 1):
        regression = LogisticRegression(C=0.1).fit(features, targets[:, label])
        expected = regression.predict_proba(features)[:, 1]
        actual = 1 / (1 + np.exp(-(features @ weight[label] + bias[label])))
        np.testing.assert_allclose(actual, expected, atol=1e-3)
    assert not weight[2:].any()
    np.testing.assert_allclose(bias[2:], [np.log(0.5 / 80.5), np.log(80.5 / 0.5)])


def test_probe_ignores_unlabelled_rows() -> None:
    features, targets = make_features()
    labelled = np.random.default_rng(1).random(80) < 0.5
    codes = np.where(labelled[:, None], targets, UNLABELLED).astype(np.uint8)
    codes[:, 1] = targets[:, 1]
    weight, bias = fit_probe(features, codes, 0.1)
    expected, expected_bias = fit_probe(features[labelled], targets[labelled], 0.1)
    complete, _ = fit_probe(features, targets, 0.1)
    np.testing.assert_array_equal(weight[0], expected[0])
    np.testing.assert_array_equal(weight[1], complete[1])
    np.testing.assert_array_equal(bias[[0, 2, 3]], expected_bias[[0, 2, 3]])
    assert choose_penalty(features, codes) in PENALTIES


def test_penalty_suits_the_features() -> None:
    features, _ = make_features()
    clear = (features[:, :1] > 0).astype(np.uint8)  # separable: hardly any penalty is needed
    noise = np.random.default_rng(1).integers(0, 2, (80, 1), dtype=np.uint8)
    assert choose_penalty(features, clear) > choose_penalty(features, noise) == PENALTIES[0]


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "electra"])
def test_last_and_dense_layers_are_found(tmp_path: Path, model_type: str) -> None:
    module = build_classifier(write_checkpoint(tmp_path / "tiny", model_type), 3)
    head = Head(("classifier", "pre_classifier", "bert.pooler"))
    last = head.last_layer(module, 3)
    assert last.out_features == 3
    (dense,) = head.dense_layers(module, last)
    set_identity(dense)
    values = torch.randn(2, dense.in_features)
    torch.testing.assert_close(dense(values), values)


def test_missing_last_layer_is_refused() -> None:
    module = nn.ModuleDict({"body": nn.Linear(4, 3), "classifier": nn.Embedding(4, 3)})
    with pytest.raises(PluginError, match=r"needs an nn.Linear in the head.*last_layer="):
        HEAD.last_layer(module, 3)
    two = nn.ModuleDict({"classifier": nn.ModuleList([nn.Linear(4, 3), nn.Linear(3, 3)])})
    assert Head(("classifier",), "classifier.0").last_layer(two, 3) is two["classifier"][0]


def test_head_may_be_a_parameter() -> None:
    assert Head(("classifier",)).contains("classifier")
    assert not Head(("classifier",)).contains("classifier_norm.weight")


def run_arguments(table: Path, checkpoint: Path, *words: str) -> list[str]:
    return ["run", "--data", str(table), "--backbones", "bert", "--weights", f"bert={checkpoint}",
            "--max-length", "16", "--epochs", "2", "--precision", "fp32", *words]  # fmt: skip


def test_probe_row_needs_one_cell(cli: Cli, table: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = cli(*run_arguments(table, checkpoint, "--seeds", "2"))
    assert result.returncode == 0, result.stderr
    assert "Candidate bert [probe]: 1 cell, 0 stored already; a linear probe on" in result.stderr
    assert "bert [probe] seed 0: micro-F1" in result.stderr
    assert "bert [probe] " in result.stdout
    records = {r.title: r for r in find_store(tmp_path / "results").records() if r.settings}
    assert records.keys() == {"bert", "bert [probe]"}
    probe = records["bert [probe]"]
    assert (probe.kind, probe.epochs) == ("baseline", ())
    again = cli(*run_arguments(table, checkpoint, "--seeds", "2", "--workers", "2"))
    assert "nothing to compute" in again.stderr


@pytest.mark.parametrize(
    ("words", "titles"),
    [
        ((), {"bert", "bert [probe]"}),
        (("--baselines", "none"), {"bert"}),
        (("--adaptation", "full", "--baselines", "none"), {"bert"}),
        (("--adaptation", "probe", "--baselines", "none"), {"bert [probe]"}),
        (("--adaptation", "lora", "--baselines", "none"), {"bert [lora]"}),
    ],
)
def test_adaptation_chooses_rows(
    cli: Cli, table: Path, checkpoint: Path, words: tuple[str, ...], titles: set[str]
) -> None:
    plan = cli(*run_arguments(table, checkpoint, "--dry-run", *words)).stderr
    lines = [line.split(":")[0] for line in plan.splitlines() if " from folder " in line]
    assert {line.removeprefix("Candidate ") for line in lines} == titles


def test_unknown_adaptation_is_refused(cli: Cli, table: Path, checkpoint: Path) -> None:
    result = cli(*run_arguments(table, checkpoint, "--adaptation", "frozen"))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "adaptation" in line


def test_adaptation_is_no_training_setting(cli: Cli, table: Path, checkpoint: Path) -> None:
    for name, text in (("train", "[train]"), ("backbone", "[backbone.bert]")):
        config = table.with_name(f"{name}.toml")
        config.write_text(f'{text}\nadaptation = "lora"\n')
        result = cli(*run_arguments(table, checkpoint, "--config", str(config)))
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
        assert "--adaptation" in result.stderr
    words = run_arguments(table, checkpoint, "--space", "adaptation=full,probe")
    result = cli("tune", *words[1:])
    assert result.returncode == 2
    assert "adaptation cannot be searched" in result.stderr


def test_probe_start_learns_faster(table: Path, checkpoint: Path, tmp_path: Path) -> None:
    losses = {}
    for start in ("probe", "random"):
        toxbench.run(
            table, backbones=["bert"], baselines=[], weights=f"bert={checkpoint}",
            results=tmp_path / start,
            train={"epochs": 1, "max_length": 16, "head_init": start, "precision": "fp32"},
        )  # fmt: skip
        (record,) = find_store(tmp_path / start).records()
        losses[start] = record.epochs[0].train_loss
    assert losses["probe"] < losses["random"]


def test_adapters_are_merged_exactly(checkpoint: Path) -> None:
    module = build_classifier(checkpoint, 3).eval()
    names = set(module.state_dict())
    add_adapters(module, HEAD)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    trainable = {name for name, p in module.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name.startswith("classifier") for name in trainable)
    ids = torch.randint(5, 40, (3, 8))
    mask = torch.ones_like(ids)
    adapted = module(input_ids=ids, attention_mask=mask).logits
    merge_adapters(module)
    assert set(module.state_dict()) == names
    merged = module(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-5)


def test_lora_models_predict(cli: Cli, table: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ("--adaptation", "lora", "--baselines", "none")
    result = cli(*run_arguments(table, checkpoint, *words))
    assert result.returncode == 0, result.stderr
    predicted = cli("predict", "you fool", "--results", str(tmp_path / "results"))
    assert predicted.returncode == 0, predicted.stderr
