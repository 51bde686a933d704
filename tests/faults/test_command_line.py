"""Mistakes on the command line are refused before any work, with a suggestion."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from toxbench.cli.main import main

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]


def answer(capsys: pytest.CaptureFixture[str], *words: str, folder: Path, code: int = 2) -> str:
    """Call the command; return its only line of output, after checking that it wrote no results."""
    with pytest.raises(SystemExit) as stop:
        main([*words, "--results", str(folder / "results")])
    out, err = capsys.readouterr()
    assert stop.value.code == code, err
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("toxbench: error: ")
    assert not (folder / "results").exists()
    return line


@pytest.mark.faults(16)
@pytest.mark.parametrize("command", ["run", "tune"])
@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["--epocs", "3"], "--epochs"),
        (["--backbones", "distilbart"], "distilbert"),
        (["--baselines", "tfidf-logref"], "tfidf-logreg"),
        (["--weights", "standin"], "stand-in"),
        (["--preset", "notebok"], "notebook"),
        (["--weights", "brt=here"], "bert"),
        (["--loss", "focl"], "focal"),
    ],
)
def test_unknown_names_have_a_suggestion(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
    words: list[str],
    suggestion: str,
) -> None:
    assert suggestion in answer(capsys, command, *words, folder=tmp_path)


@pytest.mark.faults(16)
@pytest.mark.parametrize(
    ("toml", "suggestion"),
    [
        ("seed = 3", "seeds"),
        ("[train]\nepoch = 3", "epochs"),
        ("[split]\nfold = 3", "folds"),
        ("[columns]\ntext_colum = 'a'", "text_column"),
        ("[backbone.brt]\nepochs = 3", "bert"),
    ],
)
def test_unknown_config_keys_have_a_suggestion(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, toml: str, suggestion: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(toml)
    assert f"did you mean '{suggestion}'" in answer(
        capsys, "run", "--config", str(config), folder=tmp_path
    )


@pytest.mark.faults(17)
@pytest.mark.parametrize("command", ["run", "tune"])
@pytest.mark.parametrize(
    "words",
    [
        ["--learning-rate", "0"],
        ["--learning-rate", "-1e-4"],
        ["--learning-rate", "nan"],
        ["--head-learning-rate", "inf"],
        ["--test-size", "1"],
        ["--test-size", "0"],
        ["--validation-size", "1"],
        ["--validation-size", "-0.1"],
        ["--warmup", "1"],
        ["--epochs", "0"],
        ["--batch-size", "0"],
        ["--max-length", "1000"],
        ["--seeds", "0"],
        ["--workers", "0"],
        ["--cell-timeout", "soon"],
        ["--cell-timeout", "0s"],
    ],
)
def test_impossible_values_are_refused_before_any_work(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    checkpoint: Path,
    command: str,
    words: list[str],
) -> None:
    weights = ("--backbones", "bert", "--weights", f"bert={checkpoint}")
    line = answer(capsys, command, *weights, *words, folder=tmp_path)
    assert words[0].strip("-").replace("-", "_") in line.replace("-", "_")


@pytest.mark.faults(18)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("command", ["run", "tune"])
def test_missing_device_is_not_replaced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint: Path, command: str
) -> None:
    words = (command, "--device", "cuda", "--backbones", "bert", "--weights", f"bert={checkpoint}")
    assert "--device cuda is not available" in answer(capsys, *words, folder=tmp_path)


@pytest.mark.faults(19)
def test_closed_pipe_is_not_an_error(cli: Cli, table: Path, tmp_path: Path) -> None:
    assert cli("run", "--data", str(table), "--backbones", "none", "--quiet").returncode == 0
    new_run = f"run --data {table} --backbones none --results second 2>&1"
    for words in ("leaderboard --per-label", "backbones", f"data show {table}", "metrics", new_run):
        command = f"set -o pipefail; {sys.executable} -m toxbench {words} | head -n 1 >/dev/null"
        result = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stderr) == (0, ""), words


def test_missing_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["data"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert "\n  -h, --help" in capsys.readouterr().err


@pytest.mark.faults(70)
@pytest.mark.parametrize(
    "words", [["run", "--results", ""], ["leaderboard", ""], ["report", "--results="]]
)
def test_empty_paths_are_refused(cli: Cli, words: list[str]) -> None:
    result = cli(*words)
    assert result.returncode == 2
    assert "the path is empty; give the name of a file or folder" in result.stderr
