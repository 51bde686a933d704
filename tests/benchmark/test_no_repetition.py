"""Nothing is resolved, read or computed twice in one run."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toxbench.benchmark import validate
from toxbench.ranking import build

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def finished(command: Command, table: Path, checkpoint: Path) -> tuple[str, ...]:
    """The words of a run whose cells are all stored."""
    words = (
        "run", str(table), "--backbones", "bert", "--weights", f"bert={checkpoint}",
        "--epochs", "1", "--max-length", "8", "--seeds", "2", "--quiet",
    )  # fmt: skip
    assert command(*words)[0] == 0
    return words


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> Counter[str]:
    calls: Counter[str] = Counter()
    function = getattr(module, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        calls[name] += 1
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_finished_run_reads_each_cell_once(
    command: Command, finished: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()
    open_file = Path.open  # Path.read_bytes calls it

    def counted_open(path: Path, *arguments: Any, **options: Any) -> Any:
        reads[path.name] += path.parent.name == "cells"
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counted_open)
    assert command(*finished)[0] == 0
    cells = {name: count for name, count in reads.items() if count}
    assert len(cells) == 5
    assert set(cells.values()) == {1}


def test_run_is_resolved_and_ranked_once(
    command: Command, finished: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = count_calls(monkeypatch, validate, "resolve")
    ranked = count_calls(monkeypatch, build, "build_leaderboard")
    assert command(*finished)[0] == 0
    assert resolved + ranked == {"resolve": 1, "build_leaderboard": 1}
