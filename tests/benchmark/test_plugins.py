"""Third-party plugins: pip builds and installs them, and the command line runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import TIMEOUT, read_json

pytestmark = pytest.mark.slow

GOOD = '''
"""Two backbones, a baseline and hooks of another distribution."""
from pathlib import Path
import torch
from toxbench import Backbone, Baseline, hookimpl

class Words(torch.nn.Module):
    def __init__(self, label_count):
        super().__init__()
        self.words = torch.nn.EmbeddingBag(1000, 8)
        self.fc = torch.nn.Linear(8, label_count)
    def forward(self, input_ids, attention_mask):
        return self.fc(self.words(input_ids))

class Broken(Words):
    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids, attention_mask)[:, :1]

class WordBackbone(Backbone):
    def build(self, weights, label_count):
        kind = Broken if self.name == "words-broken" else Words
        return kind(label_count)

@hookimpl
def toxbench_backbones():
    return [WordBackbone(name=name, checkpoint="no/checkpoint", head=("fc",))
            for name in ("words", "words-broken")]

@hookimpl
def toxbench_baselines():
    return [Baseline(name="half", fit=fit_half)]

def fit_half(texts, targets, context):
    import numpy as np
    return lambda texts: np.full((len(texts), len(context.labels)), 0.5)

@hookimpl
def toxbench_epoch_finished(cell, epoch):
    with Path("epochs.txt").open("a") as file:
        file.write(f"{cell.candidate} {epoch.epoch}\\n")

@hookimpl
def toxbench_cell_finished(result):
    raise RuntimeError("the hook failed")
'''
BROKEN = "import a_missing_module\n"


def install(source: Path, site: Path, name: str, module: str, code: str) -> None:
    """Write a distribution; build and install it into a folder with pip."""
    folder = source / name
    folder.mkdir()
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{name}"\nversion = "1.2"\n'
        f'[project.entry-points.toxbench]\n{module} = "{module}"\n'
        f'[tool.setuptools]\npy-modules = ["{module}"]\n',
        encoding="utf-8",
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--target", str(site), str(folder)],
        check=True, capture_output=True, timeout=TIMEOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one working and one broken distribution are installed."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    install(source, site, "toxbench-words", "words_plugin", GOOD)
    install(source, site, "toxbench-broken", "broken_plugin", BROKEN)
    return site


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(cli: Cli, site: Path, table: Path, checkpoint: Path) -> Cli:
    def call(backbones: str, *options: str) -> subprocess.CompletedProcess[str]:
        folders = ",".join(f"{name}={checkpoint}" for name in backbones.split(","))
        return cli(
            "run", "--data", str(table), "--backbones", backbones, "--weights", folders,
            "--epochs", "2", *options, PYTHONPATH=str(site),
        )  # fmt: skip

    return call


def test_broken_plugin_affects_no_other(run: Cli, tmp_path: Path) -> None:
    process = run("words", "--baselines", "half")
    assert process.returncode == 0, process.stderr
    assert "words" in process.stdout
    assert "half" in process.stdout
    assert "toxbench-broken 1.2" in process.stderr
    assert "a_missing_module" in process.stderr
    assert (tmp_path / "epochs.txt").read_text().split("\n") == ["words 1", "words 2", ""]
    assert process.stderr.count("the hook failed") == 2
    assert "Traceback" not in process.stderr


def test_broken_backbone_loses_only_its_cells(run: Cli, tmp_path: Path) -> None:
    process = run("words-broken,words", "--baselines", "half")
    assert process.returncode == 5
    assert "words-broken" in process.stderr
    assert "shape" in process.stderr
    assert "Traceback" not in process.stderr
    rows = read_json(next((tmp_path / "results").glob("*/leaderboard.json")))["rows"]
    assert {row["candidate"] for row in rows} == {"words", "half"}  # type: ignore[attr-defined]


def test_list_shows_distributions_and_problems(cli: Cli, site: Path) -> None:
    process = cli("backbones", PYTHONPATH=str(site))
    assert process.returncode == 0
    assert "toxbench-words 1.2" in process.stdout
    assert "to download" in process.stdout
    assert "broken_plugin" in process.stderr


def test_requested_broken_plugin_has_exit_code_4(cli: Cli, site: Path) -> None:
    process = cli("run", "--backbones", "broken_plugin", PYTHONPATH=str(site))
    assert process.returncode == 4
    assert process.stderr.strip().splitlines()[-1].startswith("toxbench: error: ")
    assert os.linesep not in process.stdout
