"""Plugins run code: --plugins limits them, and the manifest records them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from plugin_site import write_plugin

import toxbench
from toxbench.cli.main import cli as root
from toxbench.cli.main import main
from toxbench.errors import SettingsError, StorageError

Cli = Callable[..., subprocess.CompletedProcess[str]]

_TRACE = """
import pathlib
pathlib.Path({marker!r}).write_text("imported")

@hookimpl
def toxbench_baselines():
    import numpy as np
    return [Baseline(name={name!r}, fit=lambda texts, targets, context:
                     lambda rows: np.full((len(rows), targets.shape[1]), 0.5))]
"""
RUN = ("run", "--backbones", "none", "--quiet")
# Every command that discovers plugins, with the arguments that it needs to reach discovery.
DISCOVERING: dict[tuple[str, ...], tuple[str, ...]] = {
    ("run",): ("--backbones", "none"),
    ("tune",): (),
    ("curve",): ("--backbones", "none"),
    ("speed",): (),
    ("leaderboard",): (),
    ("compare",): (),
    ("rescore",): (),
    ("errors",): (),
    ("slices",): (),
    ("behaviour",): (),
    ("show",): ("always-negative",),
    ("predict",): ("a comment",),
    ("export",): ("exported",),
    ("metrics",): (),
    ("config",): (),
    ("cache",): (),
    ("backbones",): (),
    ("new-backbone",): ("example",),
    ("data", "check"): ("comments.csv", "--backbones", "bert"),
}
pytestmark = [pytest.mark.slow, pytest.mark.faults(43)]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two plugins that write a file when they are imported."""
    site = tmp_path / "site"
    for name in ("mine", "theirs"):
        write_plugin(site, name, _TRACE.format(marker=str(tmp_path / f"{name}.ran"), name=name))
    return site


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same two plugins, importable in this process."""
    for name in ("mine", "theirs"):
        monkeypatch.delitem(sys.modules, f"module_of_{name}", raising=False)
    monkeypatch.syspath_prepend(site)
    return site.parent


def imported(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.ran")}


def manifest(results: Path) -> list[dict[str, Any]]:
    (path,) = results.glob("*/manifest.json")
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return runs


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(words)
    return int(str(stop.value.code))


def test_unnamed_plugins_are_not_imported(cli: Cli, site: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    result = cli(*RUN, "--workers", "2", "--seeds", "2", "--plugins", "mine", PYTHONPATH=path)
    assert result.returncode == 0, result.stderr
    assert imported(tmp_path) == {"mine"}
    assert "mine" in result.stdout
    (run,) = manifest(tmp_path / "results")
    assert {"name": "mine", "distribution": "dist-mine 1.0"} in run["plugins"]


def test_every_command_can_limit_plugins(
    installed: Path,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(installed)
    for command, words in DISCOVERING.items():
        call(*command, *words, "--plugins", "none", *_stop(command))
        assert imported(installed) == set(), command
        capsys.readouterr()
        assert call(*command, *words, "--plugins", "mines") == 2, command
        error = capsys.readouterr().err
        assert "no plugin is called 'mines'; did you mean 'mine'?" in error, (command, error)
        assert imported(installed) == set(), command


def _stop(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return options that end the command soon after it has discovered its plugins."""
    stops = {"run": ("--dry-run",), "tune": ("--dry-run", "--weights", "bert=none"),
             "speed": ("--weights", "bert=none"), "check": ("--weights", "bert=none")}  # fmt: skip
    return stops.get(command[-1], ())


def test_list_of_commands_is_complete() -> None:
    limited = {
        (*path, name)
        for path, group in (((), root), (("data",), root.commands["data"]))
        if isinstance(group, click.Group)
        for name, command in group.commands.items()
        if any("--plugins" in option.opts for option in command.params)
    }
    assert limited == set(DISCOVERING)
    sources = Path(toxbench.__file__).parent
    bare = [p for p in sources.rglob("*.py") if "discover()" in p.read_text(encoding="utf-8")]
    assert bare == []


@pytest.mark.faults(48)
def test_reading_commands_import_no_plugin(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(installed)
    toxbench.run(backbones=[], plugins=[])
    for words in (
        ("metrics",), ("leaderboard", "--format", "json"), ("rescore",), ("errors",),
        ("compare",), ("show", "always-negative"), ("tune", "--importance"), ("predict", "x"),
    ):  # fmt: skip
        call(*words)
        assert imported(installed) == set(), words


@pytest.mark.parametrize("command", ["leaderboard", "rescore"])
def test_help_runs_no_foreign_code(installed: Path, command: str) -> None:
    assert call(command, "--help") == 0
    assert imported(installed) == set()


def test_api_and_config_limit_plugins(installed: Path) -> None:
    config = installed / "toxbench.toml"
    config.write_text('plugins = ["theirs"]\nbackbones = []\n', encoding="utf-8")
    board = toxbench.run(results=installed / "one", config=config).leaderboard
    assert "theirs" in set(board["candidate"])
    assert imported(installed) == {"theirs"}
    board = toxbench.run(results=installed / "two", config=config, plugins=[]).leaderboard
    assert set(board["candidate"]) == {"always-negative", "tfidf-logreg"}
    with pytest.raises(SettingsError, match="did you mean 'mine'"):
        toxbench.tune(plugins=["mime"])


def test_manifest_records_each_plugin_set_once(installed: Path) -> None:
    results = installed / "results"
    names = []
    for plugins in ([], ["mine"], ["mine"], []):
        toxbench.run(backbones=[], results=results, plugins=plugins)
        names.append([len(run["plugins"]) for run in manifest(results)])
    count = names[0][0]
    assert names == [[count], [count, count + 1], [count, count + 1], [count, count + 1]]
    (path,) = results.glob("*/manifest.json")
    before = path.read_bytes()
    toxbench.run(backbones=[], results=results, plugins=["mine"])
    assert path.read_bytes() == before
    (first, _) = manifest(results)
    assert {"python", "toxbench", "torch", "transformers"} <= set(first["versions"])


def test_failed_plugin_is_in_the_manifest(installed: Path) -> None:
    write_plugin(installed / "site", "rotten", "raise RuntimeError('no')\n")
    toxbench.run(backbones=[], results=installed / "results")
    (run,) = manifest(installed / "results")
    assert {"name": "rotten", "distribution": "dist-rotten 1.0"} in run["plugins"]


def test_a_damaged_manifest_is_a_storage_error(installed: Path) -> None:
    toxbench.run(backbones=[], results=installed, plugins=[])
    (path,) = installed.glob("*/manifest.json")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StorageError, match=r"manifest\.json is damaged; move it away"):
        toxbench.run(backbones=[], results=installed, plugins=[])
