"""The cache has a bound, and nothing that a process uses is removed."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from toxbench.errors import TryAgainError
from toxbench.store import cache
from toxbench.store.cache import clear_cache, use_cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a bound of 250 bytes and three files of tokens, the oldest first."""
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "MAX_TOKEN_BYTES", 250)
    for age, name in enumerate(["tokens/c", "tokens/a", "tokens/b", "stand-ins/bert/config.json"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (age, age))
    return tmp_path


def names(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return sorted(path.name for path in paths)


def test_oldest_tokens_are_removed_beyond_the_bound(folder: Path) -> None:
    with use_cache():
        pass
    assert names(folder) == ["a", "b", "config.json"]


def test_nothing_is_removed_while_a_process_uses_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_TOKEN_BYTES", 1000)
    with use_cache():
        monkeypatch.setattr(cache, "MAX_TOKEN_BYTES", 0)
        with use_cache(), pytest.raises(TryAgainError, match="when it has ended"):
            clear_cache()
        assert {"a", "b", "c", "config.json"} < {*names(folder)}
    clear_cache()
    assert names(folder) == []


def test_processes_that_were_killed_do_not_count(folder: Path) -> None:
    users = folder / ".users"
    users.mkdir()
    (users / "1-killed.user").touch()
    clear_cache()
    assert names(folder) == []


def test_unwritable_cache_stops_no_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("TOXBENCH_CACHE", str(folder / "file"))
    with use_cache():
        pass


def test_command_shows_and_clears_the_cache(
    folder: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    shown = cli("cache", TOXBENCH_CACHE=str(folder)).stdout
    assert "tokens of tables" in shown
    assert "10 GB" in shown
    assert cli("cache", "--clear", TOXBENCH_CACHE=str(folder)).returncode == 0
    assert names(folder) == []
