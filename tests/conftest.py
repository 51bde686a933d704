"""What several tests need: real tiny checkpoints, real plugins, the real table where it is."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_matrix import FaultMatrix
from forks import forks  # noqa: F401 - a fixture
from support import REAL_TABLE_SHA256, write_checkpoint, write_table

os.environ["HF_HUB_OFFLINE"] = "1"  # no test but those of the Hub may ask for anything
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_configure(config: pytest.Config) -> None:
    """Let ``pytest -m faults`` print its table."""
    config.pluginmanager.register(FaultMatrix())


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's cache out of the tests."""
    os.environ["TOXBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real BERT checkpoint, random and tiny, with a WordPiece tokenizer."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-bert", "bert")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """60 comments with three labels, the first of which a word gives away."""
    return write_table(tmp_path / "comments.csv")


@pytest.fixture(scope="session")
def real_table() -> Path:
    """The YouTube toxicity table, or a skip that says where it was looked for."""
    named = os.environ.get("TOXBENCH_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(named) if named else beside
    path = path / "youtoxic_english_1000.csv" if path.is_dir() else path
    if not path.is_file():
        pytest.skip("the real table is neither in TOXBENCH_DATA nor in ../shared/data")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == REAL_TABLE_SHA256
    return path


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command in a process of its own, in an empty folder."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "toxbench", *words],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """Run a command in this process, in the test's folder; return its code and stderr."""
    from toxbench.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert isinstance(stop.value.code, int)
        return stop.value.code, capsys.readouterr().err

    return run
