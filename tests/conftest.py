"""Fixtures for several tests: tiny checkpoints, tables, and ways to run the command."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from children import patch_children, start_server
from fault_matrix import FaultMatrix
from forks import Forks, forks  # noqa: F401 - a fixture
from ray_cluster import cluster  # noqa: F401 - a fixture
from support import REAL_TABLE_SHA256, write_checkpoint, write_table

os.environ["HF_HUB_OFFLINE"] = "1"  # tests of the Hub override it
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the table that ``pytest -m faults`` prints."""
    config.pluginmanager.register(FaultMatrix())


@pytest.fixture(scope="session", autouse=True)
def _fast_children() -> Iterator[None]:
    """Save the imports of the child processes of this process."""
    with ExitStack() as servers:
        if sys.platform == "linux":
            patch_children(lambda: servers.enter_context(start_server()))
        yield


@pytest.fixture(scope="session", autouse=True)
def _temporary_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use a temporary cache folder instead of the user's."""
    os.environ["TOXBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT checkpoint with a WordPiece tokenizer."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-bert", "bert")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """60 comments with three labels; a word in the text determines the first label."""
    return write_table(tmp_path / "comments.csv")


@pytest.fixture(scope="session")
def real_table() -> Path:
    """The YouTube toxicity table; the test is skipped if it is not available."""
    configured = os.environ.get("TOXBENCH_DATA")
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(configured) if configured else default
    path = path / "youtoxic_english_1000.csv" if path.is_dir() else path
    if not path.is_file():
        pytest.skip("the real table is neither in TOXBENCH_DATA nor in ../shared/data")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == REAL_TABLE_SHA256
    return path


@pytest.fixture
def cli(forks: Forks, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:  # noqa: F811
    """Run the real command in a process, in the test's folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        result = forks.run(*arguments, cwd=tmp_path, environment=environment)
        return subprocess.CompletedProcess(arguments, result.code, result.out, result.err)

    return run


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """Run a command in this process, in the test's folder; return its exit code and stderr."""
    from toxbench.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main(arguments)
        assert isinstance(exit_info.value.code, int)
        return exit_info.value.code, capsys.readouterr().err

    return run
