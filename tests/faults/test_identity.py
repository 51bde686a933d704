"""Results of one candidate are not taken for those of another one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from plugin_site import write_plugin
from safetensors.numpy import load_file, save_file

import toxbench
from toxbench import Backbone
from toxbench.plugin.registry import Registry
from toxbench.training.weights import WeightsChoice, WeightsFinder

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
WORDS = """
import torch

class Words(torch.nn.Module):
    def __init__(self, label_count):
        super().__init__()
        self.words = torch.nn.EmbeddingBag(1000, 8)
        self.fc = torch.nn.Linear(8, label_count)
    def forward(self, input_ids, attention_mask):
        return self.fc(self.words(input_ids))

class WordBackbone(Backbone):
    def build(self, weights, label_count):
        return Words(label_count)

@hookimpl
def toxbench_backbones():
    return [WordBackbone(name="words", checkpoint="no/checkpoint", head=("fc",))]
"""


def local_folder(checkpoint: Path, root: Path) -> tuple[WeightsFinder, Path]:
    folder = shutil.copytree(checkpoint, root / "folder")
    return WeightsFinder(WeightsChoice("auto", {"mine": folder})), folder


def hub_snapshot(checkpoint: Path, root: Path) -> tuple[WeightsFinder, Path]:
    repository = root / "models--a--b"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    folder = shutil.copytree(checkpoint, repository / "snapshots" / COMMIT)
    return WeightsFinder(WeightsChoice("hub")), folder


@pytest.mark.faults(53)
@pytest.mark.parametrize("make", [local_folder, hub_snapshot])
def test_every_file_beside_weights_is_identity(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path, Path], tuple[WeightsFinder, Path]],
) -> None:  # fmt: skip
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    finder, folder = make(checkpoint, tmp_path)
    backbone = Backbone(name="mine", checkpoint="a/b")
    identities = {finder.find(backbone).record.identity}
    for name in (*BESIDE, "special_tokens_map.json", "added_tokens.json"):
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write("\n")
        identities.add(finder.find(backbone).record.identity)
    assert len(identities) == 7


@pytest.mark.faults(53)
def test_changed_config_is_trained_anew(checkpoint: Path, table: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "folder")

    def run() -> list[str]:
        board = toxbench.run(
            table, backbones=["bert"], baselines=["always-negative"], weights=f"bert={folder}",
            results=tmp_path / "results", train={"epochs": 1, "max_length": 16}, workers=1,
        )  # fmt: skip
        return sorted(board.leaderboard["candidate"])

    assert run() == ["always-negative", "bert"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    assert run() == ["always-negative", "bert", "bert"]


@pytest.mark.faults(55)
def test_changed_plugin_is_trained_anew(
    cli: Cli, checkpoint: Path, table: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    run = ("run", "--data", str(table), "--backbones", "words", "--baselines", "none",
           "--weights", f"words={checkpoint}", "--epochs", "1", "--max-length", "16")  # fmt: skip
    for count, (source, version) in enumerate(
        [(WORDS, "1.0"), (f"{WORDS}#\n", "1.0"), (f"{WORDS}#\n", "2.0")], 1
    ):
        write_plugin(site, "words", source, version)
        result = cli(*run, PYTHONPATH=path)
        assert result.returncode == 0, result.stderr
        cells = [p.name for p in tmp_path.glob("results/*/cells/words-*-seed0.safetensors")]
        assert len(cells) == count
    assert "nothing to compute" in cli(*run, PYTHONPATH=path).stderr


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.faults(56)
@pytest.mark.usefixtures("cache")
def test_forged_stand_in_is_made_anew() -> None:
    backbone = Registry.discover(()).backbone("bert").item
    finder = WeightsFinder(WeightsChoice("stand-in"))
    folder = finder.find(backbone).folder
    assert folder is not None
    path = folder / "model.safetensors"
    content = path.read_bytes()
    save_file({n: 0 * tensor for n, tensor in load_file(path).items()}, path, {"format": "pt"})
    files = sorted(p for p in folder.iterdir() if p.name != "sha256")
    sums = subprocess.run(
        ["sha256sum", *(p.name for p in files)], cwd=folder, capture_output=True, check=True
    ).stdout
    (folder / "sha256").write_bytes(sums)
    intact = finder.find(backbone).folder
    assert intact is not None
    assert (intact / "model.safetensors").read_bytes() == content


_FIRST_RUN = """
import sys
from pathlib import Path
from toxbench.plugin.registry import Registry
from toxbench.training.weights import WeightsChoice, WeightsFinder
backbone = Registry.discover(()).backbone("bert").item
print("ready", flush=True)
sys.stdin.readline()
folder = WeightsFinder(WeightsChoice("stand-in")).find(backbone).folder
print(sorted((p.name, p.stat().st_ino) for p in folder.iterdir()), flush=True)
"""


@pytest.mark.faults(57)
def test_simultaneous_first_runs_replace_no_file(cache: Path) -> None:
    pipe = subprocess.PIPE
    runs = [
        subprocess.Popen([sys.executable, "-c", _FIRST_RUN], stdin=pipe, stdout=pipe, text=True)
        for _ in range(3)
    ]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    assert len({run.communicate()[0] for run in runs}) == 1
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert [p.name for p in (cache / "stand-ins").glob("*/.*")] == []
