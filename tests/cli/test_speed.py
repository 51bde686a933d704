"""`toxbench speed` through the real command; no test asserts a time."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_backbone_is_measured_without_storing_results(
    cli: Cli, checkpoint: Path, table: Path, tmp_path: Path
) -> None:
    result = cli("speed", "--backbones", "bert", "--weights", f"bert={checkpoint}", "--data",
               str(table), "--max-length", "32", "--repeats", "2", "--epochs", "2",
               "--format", "json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "fool" not in result.stdout
    assert result.stderr == ""
    (row,) = json.loads(result.stdout)["rows"]
    assert (row["rows"], row["repeats"], row["epochs"]) == (48, 2, 2)
    assert row["tokens"] > 0
    assert row["peak_memory_bytes"] > 0
    for name in ("seconds_per_epoch", "comments_per_second", "tokens_per_second",
                 "evaluation_comments_per_second", "share_of_peak"):  # fmt: skip
        assert 0 < row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert row["comments_per_second_low"] == pytest.approx(48 / row["seconds_per_epoch_high"])
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "progress"), [([], "[bert] run 1 of 1: "), (["--quiet"], "")], ids=["", "quiet"]
)
def test_progress_is_printed_on_stderr(
    cli: Cli, checkpoint: Path, table: Path, words: list[str], progress: str
) -> None:
    result = cli("speed", "--backbones", "bert", "--weights", f"bert={checkpoint}", "--data",
               str(table), "--repeats", "1", "--epochs", "1", *words)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "evaluation comments/s" in result.stdout
    assert progress in result.stderr
    assert bool(result.stderr) == bool(progress)
    assert "fool" not in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--repeats", "0"), "--repeats"),
        (("--format", "jsn"), "did you mean 'json'"),
        (("--backbones", "brt"), "did you mean 'bert'"),
        (("--weights", "nowhere"), "--weights 'nowhere'"),
    ],
)
def test_wrong_options_are_refused_at_once(cli: Cli, words: tuple[str, ...], message: str) -> None:
    result = cli("speed", *words)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert message in line
