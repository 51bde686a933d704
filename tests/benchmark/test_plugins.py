"""Real third-party distributions: pip builds and installs them, the real command runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import read_json

GOOD = '''
"""A backbone, a baseline and a tracker that are not toxbench's."""
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
    return [WordBackbone(name=name, checkpoint="nobody/nothing", head=("fc",))
            for name in ("words", "words-broken")]

@hookimpl
def toxbench_baselines():
    return [Baseline(name="half", fit=lambda texts, targets: predict_half(targets.shape[1]))]

def predict_half(label_count):
    import numpy as np
    return lambda texts: np.full((len(texts), label_count), 0.5)

@hookimpl
def toxbench_epoch_finished(cell, epoch):
    with Path("heard.txt").open("a") as file:
        file.write(f"{cell.candidate} {epoch.epoch}\\n")

@hookimpl
def toxbench_cell_finished(result):
    raise RuntimeError("the tracker is away")
'''
BROKEN = "import a_module_that_is_not_there\n"


def install(source: Path, site: Path, name: str, module: str, code: str) -> None:
    """Write a distribution and let pip build and install it into a folder."""
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
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good and one broken plugin distribution installed."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    install(source, site, "toxbench-words", "words_plugin", GOOD)
    install(source, site, "toxbench-broken", "broken_plugin", BROKEN)
    return site


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(cli: Cli, site: Path, table: Path, checkpoint: Path) -> Cli:
    def call(backbones: str, *words: str) -> subprocess.CompletedProcess[str]:
        folders = ",".join(f"{name}={checkpoint}" for name in backbones.split(","))
        return cli(
            "run", "--data", str(table), "--backbones", backbones, "--weights", folders,
            "--epochs", "2", *words, PYTHONPATH=str(site),
        )  # fmt: skip

    return call


def test_an_installed_plugin_runs_beside_a_broken_one(run: Cli, tmp_path: Path) -> None:
    done = run("words", "--baselines", "half")
    assert done.returncode == 0, done.stderr
    assert "words" in done.stdout
    assert "half" in done.stdout
    assert "toxbench-broken 1.2" in done.stderr
    assert "a_module_that_is_not_there" in done.stderr
    assert (tmp_path / "heard.txt").read_text().split("\n") == ["words 1", "words 2", ""]
    assert done.stderr.count("the tracker is away") == 2
    assert "Traceback" not in done.stderr


def test_a_backbone_that_breaks_its_contract_loses_only_its_cells(run: Cli, tmp_path: Path) -> None:
    done = run("words-broken,words", "--baselines", "half")
    assert done.returncode == 5
    assert "words-broken" in done.stderr
    assert "shape" in done.stderr
    assert "Traceback" not in done.stderr
    rows = read_json(next((tmp_path / "results").glob("*/leaderboard.json")))["rows"]
    assert {row["candidate"] for row in rows} == {"words", "half"}  # type: ignore[attr-defined]


def test_the_listing_names_the_distribution_and_the_broken_plugin(cli: Cli, site: Path) -> None:
    done = cli("backbones", PYTHONPATH=str(site))
    assert done.returncode == 0
    assert "toxbench-words 1.2" in done.stdout
    assert "to download" in done.stdout
    assert "broken_plugin" in done.stderr


def test_asking_for_the_broken_plugin_is_exit_code_4(cli: Cli, site: Path) -> None:
    done = cli("run", "--backbones", "broken_plugin", PYTHONPATH=str(site))
    assert done.returncode == 4
    assert done.stderr.strip().splitlines()[-1].startswith("toxbench: error: ")
    assert os.linesep not in done.stdout
