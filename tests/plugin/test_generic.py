"""Backbones without a plugin: ids of the Hub and folders."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import COMMIT, fake_hub
from support import TIMEOUT

from toxbench.plugin.registry import Registry
from toxbench.store.cells import find_store
from toxbench.testing import BackboneContract, modules, write_checkpoint
from toxbench.testing.contract import TEXTS
from toxbench.training.weights import WeightsChoice, WeightsFinder

Cli = Callable[..., subprocess.CompletedProcess[str]]
RUN = ("run", "--data", "comments.csv", "--baselines", "none", "--epochs", "1", "--max-length",
       "16", "--precision", "fp32")  # fmt: skip
# Beside those of the built-in plugins. Each has a head of its own kind.
ARCHITECTURES: dict[str, dict[str, int]] = {
    "albert": {},
    "bart": {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1},
    "bloom": {},
    "convbert": {},
    "deberta": {},
    "gpt_neox": {},
    "llama": {},
    "mpnet": {},
    "nystromformer": {},
    "opt": {"word_embed_proj_dim": 16, "ffn_dim": 32},
    "qwen2": {},
    "squeezebert": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_architecture_without_plugin_keeps_the_contract(model_type: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / model_type, model_type, **ARCHITECTURES[model_type])
    backbone = Registry.built_in().requested_backbone(str(folder)).item
    rows = modules.tokenize(backbone, folder, TEXTS)
    module = modules.build_module(backbone, folder, 3).eval()
    contract = BackboneContract()
    contract.test_padding_does_not_change_logits(module, rows)
    contract.test_gradients_reach_every_parameter(backbone, folder, rows)
    contract.test_head_names_the_new_parameters(backbone, folder)
    contract.test_last_layer_returns_the_logits(backbone, module, rows)


def names_of(plan: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the candidates of a printed plan."""
    lines = [line for line in plan.stderr.splitlines() if line.startswith("Candidate ")]
    return [line.split()[1].rstrip(":") for line in lines]


@pytest.mark.slow
def test_folders_of_one_name_are_two_candidates(cli: Cli, table: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a" / "tiny", "bert", seed=0)
    write_checkpoint(tmp_path / "b" / "tiny", "gpt2", seed=1)
    words = (*RUN, "--backbones", f"./a/tiny,{tmp_path / 'b' / 'tiny'}", "--workers", "2")
    first, second = names_of(cli(*words, "--dry-run"))
    assert first != second
    assert first[:5] == second[:5] == "tiny-"
    (tmp_path / "settings.toml").write_text('[backbone."./a/tiny"]\nbatch_size = 8\n')
    finished = cli(*words, "--config", "settings.toml", "--format", "json")
    assert finished.returncode == 0, finished.stderr
    assert {row["candidate"] for row in json.loads(finished.stdout)["rows"]} == {first, second}
    (tmp_path / "a" / "tiny").rename(tmp_path / "tiny")
    moved = cli(*RUN, "--backbones", "./tiny", "--batch-size", "8", "--dry-run")
    assert f"{first}: 1 cell, 1 stored already" in moved.stderr
    predicted = cli("predict", "--backbone", second, "you fool")
    assert predicted.returncode == 0, predicted.stderr


@pytest.mark.slow
def test_hub_id_is_trained_from_its_commit(table: Path, checkpoint: Path, tmp_path: Path) -> None:
    with fake_hub("org/model", checkpoint) as hub:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        words = [*RUN, "--backbones", "org/model@refs/pr/4", "--adaptation", "probe"]
        finished = subprocess.run(
            [sys.executable, "-m", "toxbench", *words], cwd=tmp_path, check=False,
            env={**os.environ, **online}, capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert f"from org/model@{COMMIT[:7]}" in finished.stderr
    assert "org--model--refs--pr--4 [probe]" in finished.stdout
    (record,) = find_store(tmp_path / "results").records()
    assert record.weights is not None
    assert record.weights.identity.startswith(COMMIT)


@pytest.mark.parametrize(
    ("word", "code", "message"),
    [
        ("brt", 2, "did you mean 'bert'?"),
        ("robrta", 2, "did you mean 'roberta'?"),
        ("bert-base-cased", 75, "no weights for bert-base-cased"),
        ("roberta-base", 75, "no weights for roberta-base"),
        ("org/model@v1", 75, "no weights for org--model--v1"),
        ("org/model@../x", 2, "is no registered name, no id of the Hub"),
        ("./missing", 2, "is not a folder with files"),
        ("a/tiny", 2, "write ./a/tiny for the folder, or a/tiny@main for the Hub"),
    ],
)
def test_unusable_words_are_refused_in_one_line(
    cli: Cli, table: Path, tmp_path: Path, word: str, code: int, message: str
) -> None:
    (tmp_path / "a" / "tiny").mkdir(parents=True)
    refused = cli(*RUN, "--backbones", word, "--dry-run")
    assert refused.returncode == code
    (line,) = (line for line in refused.stderr.splitlines() if "error: " in line)
    assert message in line


@pytest.mark.parametrize(("size", "rate"), [(384, 1e-4), (768, None), (1024, 1e-5)])
def test_defaults_depend_on_the_size(
    checkpoint: Path, tmp_path: Path, size: int, rate: float | None
) -> None:
    folder = tmp_path / "sized"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": size}))
    backbone = Registry.built_in().requested_backbone(str(folder)).item
    weights = WeightsFinder(WeightsChoice(folders={backbone.name: folder})).find(backbone)
    assert weights.defaults.get("learning_rate") == rate
