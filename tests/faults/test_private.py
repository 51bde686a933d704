"""Stored files contain no token, home folder or user name."""

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import CommandResult, Forks
from plugin_site import write_plugin
from support import write_table

from toxbench.util.text import redact

pytestmark = [pytest.mark.slow, pytest.mark.faults(44)]
TOKEN = "hf_secretsecretsecret"  # noqa: S105 - not a real token
BROKEN = """
import os

class Leaky(Backbone):
    def build(self, weights, label_count):
        raise RuntimeError(f"no {weights} of {os.environ['USER']} in {os.path.expanduser('~')} "
                           f"with {os.environ['HF_TOKEN']}")

@hookimpl
def toxbench_backbones():
    return [Leaky(name="leaky", checkpoint="a/b")]
"""
Command = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The home folder of alice, with a table, a checkpoint and a plugin."""
    home = tmp_path_factory.mktemp("somewhere") / "alice"
    (home / "inputs").mkdir(parents=True)
    write_table(home / "inputs" / "comments.csv")
    shutil.copytree(checkpoint, home / "inputs" / "tiny")
    write_plugin(home / "inputs" / "site", "leaky", BROKEN)
    return home


@pytest.fixture(scope="module")
def alice(home: Path, forks: Forks) -> Command:
    """Run a command as alice, in her home folder."""
    path = os.pathsep.join([str(home / "inputs" / "site"), os.environ.get("PYTHONPATH", "")])
    variables = {
        "HOME": str(home), "USER": "alice", "LOGNAME": "alice", "HF_TOKEN": TOKEN,
        "TOXBENCH_CACHE": str(home / "cache"), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1",
        "MPLCONFIGDIR": str(home / "inputs" / "mpl"),
    }  # fmt: skip

    def run(*words: str) -> CommandResult:
        return forks.run(*words, cwd=home, environment=variables)

    return run


def contents(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from map(archive.read, archive.namelist())


def leaks(home: Path) -> list[str]:
    """Return each stored file with a private word in it; the inputs of alice may hold them."""
    private = [TOKEN.encode(), b"alice", str(home.parent).encode()]
    return [
        f"{path.relative_to(home)}: {word!r}"
        for path in home.rglob("*")
        if path.is_file() and "inputs" not in path.parts
        for content in contents(path)
        for word in private
        if word in content
    ]


def test_stored_files_contain_nothing_private(alice: Command, home: Path) -> None:
    data = ("--data", str(home / "inputs" / "comments.csv"))
    weights = ("--weights", f"bert={home}/inputs/tiny,leaky={home}/inputs/tiny")
    small = ("--max-length", "16", "--epochs", "1")
    both = ("--backbones", "bert,leaky", "--baselines", "none")
    trackers = ("--trackers", "tensorboard,mlflow")
    result = alice("run", *data, *weights, *small, *both, *trackers,
                 "--split-file", str(home / "split.json"))  # fmt: skip
    assert result.code == 5, result.err
    result = alice("tune", *data, *weights, *small, *both, "--trials", "2", "--finalists", "1",
                 "--finalist-seeds", "1", "--finalist-folds", "1", "--seeds", "1",
                 "--split-file", str(home / "split.json"))  # fmt: skip
    assert result.code == 5, result.err
    assert "~/inputs/tiny" in result.err  # the reason is printed as it is stored
    result = alice("speed", *data, "--backbones", "bert", "--weights", f"bert={home}/inputs/tiny",
                 *small, "--repeats", "1", "--quiet")  # fmt: skip
    assert result.code == 0, result.err
    stored = {path.name for path in (home / "results").rglob("*")} | set(os.listdir(home / "cache"))
    assert {"split.json"} <= set(os.listdir(home))
    assert {
        "studies.sqlite3", "trials.csv", "tuned.toml", "manifest.json",
        "protocol.json", "rows.safetensors", "leaderboard.md", "mlflow.db",
        "toxbench.json",
    } <= stored  # fmt: skip
    assert any("no ~/inputs/tiny" in path.read_text() for path in home.rglob("trial-*.json"))
    assert leaks(home) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no /somewhere/alice/x", "no ~/x"),
        ("no /somewhere/alicent/x", "no /somewhere/alicent/x"),
        ("/scratch/alice/x", "/scratch/USER/x"),
        ("denied to alice.", "denied to USER."),
        ("malice", "malice"),
        (f"Bearer {TOKEN}", "Bearer ***"),
        ("key 0123456789", "key ***"),
        ("hf_AbCdEfGh0123456789", "***"),
        ("postgresql://bob:pw@host/db", "postgresql://***@host/db"),
    ],
)
def test_messages_are_scrubbed(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    for name, value in {"HOME": "/somewhere/alice", "USER": "alice", "LOGNAME": "alice",
                        "HF_TOKEN": TOKEN, "KAGGLE_KEY": "0123456789"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert redact(text) == expected
