"""Closed standard streams and ``python -OO``, in real interpreters."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import read_json

pytestmark = [pytest.mark.slow, pytest.mark.faults(51)]


def shell(words: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a toxbench command in a shell, so that it may start with closed streams."""
    python = shlex.join([sys.executable, *options, "-m", "toxbench"])
    return subprocess.run(["sh", "-c", f"{python} {words}"], cwd=folder, check=False,
                          capture_output=True, text=True)  # fmt: skip


def test_closed_streams_cost_no_work(tmp_path: Path) -> None:
    run = "run --backbones none --baselines always-negative"
    result = shell(f"{run} <&- >&-", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "bug" not in result.stderr
    (board,) = tmp_path.glob("results/*/leaderboard.json")
    assert read_json(board)["rows"]


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", ">&- <&- 2>&-"])
def test_small_commands_run_with_closed_streams(tmp_path: Path, closed: str) -> None:
    result = shell(f"metrics {closed}", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("words", ["metrics", "run", "--help"])
def test_python_without_docstrings_is_refused(tmp_path: Path, words: str) -> None:
    result = shell(words, tmp_path, "-OO")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "toxbench: error: transformers needs docstrings; start Python without -OO"
    ]
