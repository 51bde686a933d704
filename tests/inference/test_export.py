"""Export: transformers alone loads the folder and predicts the stored probabilities."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from support import TIMEOUT
from torch import nn

import toxbench
from toxbench.errors import PluginError, SettingsError, StorageError
from toxbench.evaluation.thresholds import calibrate
from toxbench.inference.export import export
from toxbench.inference.model import Model, load_model
from toxbench.inference.select import choose_model
from toxbench.plugin.registry import Registry
from toxbench.store.cells import find_store
from toxbench.store.files import read_cell

pytestmark = pytest.mark.slow

Command = Callable[..., tuple[int, str]]
CLASSIFY = """
import json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        assert name.split(".")[0] != "toxbench", "toxbench was imported"
sys.meta_path.insert(0, Blocker())
from transformers import pipeline
classify = pipeline("text-classification", sys.argv[1], top_k=None)
texts = json.load(open(sys.argv[2]))
predictions = classify(texts, truncation=True)
print(json.dumps([{d["label"]: d["score"] for d in row} for row in predictions]))
"""


@pytest.mark.parametrize("backbone", ["bert", "distilbert", "roberta"])
def test_a_pipeline_predicts_the_stored_probabilities(
    trained: Path, results: Path, tmp_path: Path, command: Command, backbone: str
) -> None:
    target = tmp_path / "deep" / "my-model"
    words = ("export", "--results", str(results), "--backbone", backbone, str(target))
    assert command(*words) == (0, "")
    store = find_store(results)
    _, record = choose_model(store, backbone)
    assert record.precision == "fp32"
    texts = pd.read_csv(trained / "comments.csv")["text"]
    texts_path = tmp_path / "texts.json"
    texts_path.write_text(json.dumps(texts[list(store.protocol().folds[0].test)].tolist()))
    process = subprocess.run(
        [sys.executable, "-c", CLASSIFY, str(target), str(texts_path)],
        capture_output=True, text=True, check=True, timeout=TIMEOUT,
    )  # fmt: skip
    scores = [[row[label] for label in record.labels] for row in json.loads(process.stdout)]
    _, stored = read_cell(store.path(record.key))
    calibrated = calibrate(stored["test"], record.calibration)
    assert np.abs(calibrated - stored["test"]).max() > 1e-3
    assert np.abs(np.array(scores) - calibrated).max() < 1e-5
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    assert config["problem_type"] == "multi_label_classification"
    assert list(config["id2label"].values()) == list(record.labels)
    assert "auto_map" not in config
    tokenizer = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokenizer["model_max_length"] == record.max_length
    thresholds = json.loads((target / "thresholds.json").read_text(encoding="utf-8"))
    assert tuple(thresholds["global"].values()) == record.thresholds["global"]
    assert {path.suffix for path in target.iterdir()} <= {".json", ".safetensors", ".md", ".txt"}
    assert not any(str(tmp_path.parent).encode() in p.read_bytes() for p in target.iterdir())
    assert {path.name for path in target.parent.iterdir()} == {"my-model"}


def test_windows_are_predicted_but_not_exported(
    checkpoint: Path, table: Path, tmp_path: Path, command: Command
) -> None:
    results = tmp_path / "results"
    toxbench.run(
        table, backbones=["bert"], baselines=[], weights=f"bert={checkpoint}", results=results,
        train={"epochs": 1, "max_length": 8, "long_text": "windows", "precision": "fp32"},
    )  # fmt: skip
    store = find_store(results)
    texts = pd.read_csv(table)["text"][list(store.protocol().folds[0].test)].tolist()
    source, record = choose_model(store, None)
    predictions = toxbench.predict(results, texts)
    stored = load_file(source / "probabilities.safetensors")["test"]
    probabilities = predictions[[f"{label}_probability" for label in record.labels]]
    np.testing.assert_allclose(probabilities, calibrate(stored, record.calibration), atol=1e-6)
    first_words = toxbench.predict(results, [" ".join(text.split()[:6]) for text in texts])
    assert not predictions.equals(first_words)
    assert command("export", str(tmp_path / "out")) == (0, "")
    card = " ".join((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split())
    assert "only toxbench predict reads them as in training (long_text = windows)" in card


def test_an_existing_target_is_not_overwritten(
    results: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    for name, reason in (
        ("full", "not empty"), ("file", "not a folder"), ("link", "symbolic link"),
    ):  # fmt: skip
        code, error = command("export", "--results", str(results), str(tmp_path / name))
        assert (code, reason in error) == (2, True), error
    assert command("export", "--results", str(results), str(tmp_path / "empty"))[0] == 0
    assert (tmp_path / "full" / "x").read_text() == (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def model(results: Path) -> tuple[Model, Path]:
    source, record = choose_model(find_store(results), "bert")
    return load_model(source, record, Registry.discover([])), source


def test_an_export_with_other_logits_is_refused(model: tuple[Model, Path], tmp_path: Path) -> None:
    """A plugin's forward may do more than the transformers class it exports."""
    from dataclasses import replace

    stored, source = model

    class Scaled(nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits = stored.module(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits * 1.001  # type: ignore[no-any-return]

    class Backbone(type(stored.backbone)):  # type: ignore[misc]
        def exported(self, module: nn.Module) -> object:
            return stored.module

    scaled = replace(stored, module=Scaled(), backbone=Backbone(name="bert", checkpoint="a/b"))
    with pytest.raises(PluginError, match=r"its logits differ by .*; nothing was written"):
        export(scaled, source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_target_is_refused(model: tuple[Model, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot write"):
        export(*model, tmp_path / "file" / "out")
    with pytest.raises(SettingsError, match="not a folder"):
        export(*model, tmp_path / "file")
