"""Sources of settings, in this order: pyproject.toml, --config, the environment, options."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import write_table

import toxbench

Command = Callable[..., subprocess.CompletedProcess[str]]
PROJECT = """
[tool.toxbench]
seeds = 2
results = "project"
backbones = ["bert"]
[tool.toxbench.train]
epochs = 3
[tool.toxbench.backbone.bert]
epochs = 7
batch_size = 8
[tool.toxbench.tune]
storage = "postgresql://user:secret@host/db"
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")


def test_later_sources_override_earlier_ones(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('preset = "notebook"\nseeds = 3\n[train]\nepochs = 5\n')
    result = cli("config", "--config", "run.toml", "--json", TOXBENCH_RESULTS="here")
    rows = {row["setting"]: row for row in json.loads(result.stdout)["rows"]}
    assert {name: (rows[name]["value"], rows[name]["source"]) for name in EXPECTED} == EXPECTED
    assert "secret" not in result.stdout


EXPECTED = {
    "seeds": ("3", "--config run.toml"),
    "results": ("here", "TOXBENCH_RESULTS"),
    "train.epochs": ("5", "--config run.toml"),
    "train.batch_size": ("1", "preset notebook"),
    "backbone.bert.batch_size": ("8", "pyproject.toml"),
    "split.folds": ("1", "default"),
    "workers": ("-", "default"),
}


def test_commands_and_functions_use_the_project(
    cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path / "comments.csv")
    project = '[tool.toxbench]\nbackbones = []\nresults = "project"'
    (tmp_path / "pyproject.toml").write_text(project, encoding="utf-8")
    assert "tfidf-logreg" in cli("run", "comments.csv").stdout
    assert "tfidf-logreg" in cli("leaderboard").stdout
    assert cli("leaderboard", TOXBENCH_RESULTS="other").returncode == 6
    monkeypatch.chdir(tmp_path)
    assert toxbench.load().folder.parent == Path("project")
    assert toxbench.run("comments.csv", seeds=1).folder.parent == Path("project")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[tool.toxbench]\nseed = 3", "[tool.toxbench] in pyproject.toml: unknown setting 'seed'"),
        ("[tool", "pyproject.toml: not TOML"),
        ("[tool]\ntoxbench = 3", "[tool.toxbench] in pyproject.toml: it is not a table"),
    ],
)
def test_errors_name_the_project_file(
    cli: Command, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(content, encoding="utf-8")
    result = cli("run", "--dry-run")
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_shell_completes_commands_and_options(cli: Command) -> None:
    def completions(words: str) -> list[str]:
        number = str(len(words.split()) - 1)
        result = cli(_TOXBENCH_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number)
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    assert completions("toxbench lead") == ["leaderboard"]
    assert "--head-init" in completions("toxbench run --head")
