"""ONNX export: the folder predicts the stored probabilities without torch and toxbench."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support import TIMEOUT, build_classifier
from torch import nn

import toxbench
from toxbench.errors import PluginError
from toxbench.inference import onnx
from toxbench.inference.model import CalibratedForward, Model, load_model
from toxbench.inference.onnx import OnnxModule, export_onnx
from toxbench.inference.select import choose_model
from toxbench.plugin.registry import Registry
from toxbench.store.cells import find_store
from toxbench.testing import write_checkpoint

pytestmark = pytest.mark.slow

Command = Callable[..., tuple[int, str]]
Prediction = dict[str, dict[str, float]]
Cli = Callable[..., subprocess.CompletedProcess[str]]
TEXTS = ["you fool", "thank you " + "again and " * 40, "w7"]
RUN_EXAMPLE = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        assert name.split(".")[0] not in {"toxbench", "torch", "transformers"}, name
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_example(folder: Path, texts: list[str]) -> list[Prediction]:
    process = subprocess.run(
        [sys.executable, "-I", "-c", RUN_EXAMPLE, str(folder / "example.py"), *texts],
        capture_output=True, text=True, check=True, timeout=TIMEOUT,
    )  # fmt: skip
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.fixture
def model(results: Path) -> tuple[Model, Path]:
    source, record = choose_model(find_store(results), "bert")
    return load_model(source, record, Registry.discover([])), source


def largest_difference(predictions: list[Prediction], expected: pd.DataFrame) -> float:
    return max(
        abs(probability - expected[f"{label}_probability"][row])
        for row, prediction in enumerate(predictions)
        for label, probability in prediction["probabilities"].items()
    )


def test_example_predicts_without_torch(
    trained: Path, results: Path, cli: Cli, tmp_path: Path
) -> None:
    table = ("--data", str(trained / "comments.csv"))
    words = ("--results", str(results), "--backbone", "bert", "--format", "onnx")
    run = cli("export", "out", *words, "--quantize", "int8", *table)
    assert (run.returncode, run.stderr) == (0, "")
    folder = tmp_path / "out"
    assert list(tmp_path.iterdir()) == [folder]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "library_name: onnx" in card
    assert "## Intended use and limits" in card
    sources = str(Path(toxbench.__file__).parent).encode()
    assert not any(sources in path.read_bytes() for path in folder.iterdir())

    expected = toxbench.predict(results, TEXTS, backbone="bert")
    assert 1e-6 < largest_difference(run_example(folder, TEXTS), expected) < 0.05
    settings = json.loads((folder / "toxbench.json").read_text(encoding="utf-8"))
    (folder / settings["model"]).unlink()
    (folder / "toxbench.json").write_text(json.dumps(settings | {"model": "model.onnx"}))
    predictions = run_example(folder, TEXTS)
    assert largest_difference(predictions, expected) < 1e-4
    for row, prediction in enumerate(predictions):
        assert list(prediction["probabilities"]) == settings["labels"]
        for label in settings["labels"]:
            assert (label in prediction["labels"]) == expected[label][row]

    first, *_, exact, int8 = settings["measured"]
    assert [first["format"], exact["format"], int8["format"]] == [
        "torch fp32", "onnx fp32", "onnx int8"
    ]  # fmt: skip
    assert re.fullmatch(r"[+-]\S+ \[\S+, \S+\]", int8["micro-F1 difference"])
    assert float(int8["MB"]) < float(exact["MB"])
    assert all(value in run.stdout for row in settings["measured"] for value in row.values())


class MeanOfTokens(nn.Module):
    """A module that is no class of transformers."""

    def __init__(self, label_count: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(200, 8)
        self.classifier = nn.Linear(8, label_count)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask[:, :, None].float()
        mean = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)
        logits: torch.Tensor = self.classifier(mean)
        return logits


class BranchesOnValues(MeanOfTokens):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits = super().forward(input_ids, attention_mask)
        return logits if attention_mask.all() else 2 * logits


class ChangesInExport(MeanOfTokens):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids, attention_mask) + 0.01 * torch.compiler.is_exporting()


@pytest.mark.parametrize("kind", ["custom", "decoder"])
def test_any_module_is_exported(
    model: tuple[Model, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    stored, source = model
    label_count = len(stored.record.labels)
    if kind == "custom":
        module: nn.Module = MeanOfTokens(label_count)
        monkeypatch.setattr(onnx, "_MAX_FILE_BYTES", 0)  # weights in a file of their own
    else:
        module = build_classifier(write_checkpoint(tmp_path / "gpt2", "gpt2"), label_count)
    changed = replace(stored, module=module.eval())
    export_onnx(changed, source, tmp_path / "out", quantize=False, rows=None)
    assert (tmp_path / "out" / "model.onnx.data").is_file() == (kind == "custom")
    forward = CalibratedForward(module, label_count, stored.record.calibration).eval()
    ids = torch.randint(5, 40, (7, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[2:, 6:] = 0
    with torch.inference_mode():
        expected = forward(ids, mask).sigmoid().numpy()
        exported = OnnxModule(tmp_path / "out" / "model.onnx")(ids, mask).sigmoid().numpy()
    np.testing.assert_allclose(exported, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (BranchesOnValues, r"torch.onnx cannot export BranchesOnValues: .*; nothing was written"),
        (ChangesInExport, r"its probabilities differ by 2\.\de-03; nothing was written"),
    ],
)
def test_a_module_that_cannot_be_exported_is_refused(
    model: tuple[Model, Path], tmp_path: Path, kind: type[MeanOfTokens], message: str
) -> None:
    stored, source = model
    changed = replace(stored, module=kind(len(stored.record.labels)).eval())
    with pytest.raises(PluginError, match=message) as caught:
        export_onnx(changed, source, tmp_path / "out", quantize=False, rows=None)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_not_fit_are_refused(
    trained: Path, results: Path, tmp_path: Path, command: Command
) -> None:
    other = tmp_path / "other.csv"
    lines = (trained / "comments.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    other.write_text("".join(lines[:-1]), encoding="utf-8")
    for words, code, reason in (
        (("--quantize", "int8"), 2, "--quantize is for ONNX files; add --format onnx"),
        (("--data", str(other)), 2, "--data is for ONNX files; add --format onnx"),
        (("--format", "onnx", "--quantize", "int8"), 2, "add --data FILE"),
        (("--format", "onnx", "--text-column", "text"), 2, "add --data FILE"),
        (("--format", "onnx", "--data", str(other)), 3, "not the table of these results"),
    ):
        exit_code, error = command("export", "out", "--results", str(results), *words)
        assert (exit_code, reason in error) == (code, True), error
    assert not (tmp_path / "out").exists()


def test_onnx_needs_its_extra(
    results: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toxbench.cli.export.find_spec", lambda name: None)
    code, error = command("export", "out", "--results", str(results), "--format", "onnx")
    assert (code, error.count("\n")) == (2, 1)
    assert 'first: pip install "toxbench[onnx]"' in error
