"""`toxbench speed` through the real command; no test asserts a time."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import read_json

Cli = Callable[..., subprocess.CompletedProcess[str]]


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_backbone_and_peers_are_measured_and_what_was_reached_is_kept(
    cli: Cli, checkpoint: Path, table: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    (cache).mkdir()
    (cache / "speed.json").write_text("{]", encoding="utf-8")
    words = ("--backbones", "bert", "--weights", f"bert={checkpoint}", "--data", str(table),
             "--max-length", "32")  # fmt: skip
    done = cli("speed", *words, "--against", "trainer,notebook", "--repeats", "2", "--epochs", "2",
               "--format", "json", TOXBENCH_CACHE=str(cache))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fool" not in done.stdout + done.stderr
    assert "speed.json, which toxbench speed wrote, is not used: it is damaged" in done.stderr
    assert "[bert] trainer-default, run 2 of 2: " in done.stderr
    rows = {row["by"]: row for row in json.loads(done.stdout)["rows"]}
    assert list(rows) == ["toxbench", "trainer", "trainer-default", "notebook"]
    own = rows["toxbench"]
    assert own["startup_seconds"] > own["startup_seconds_import"] > 0
    assert own["evaluation_comments_per_second"] > 0
    assert own["times_slower"] is None
    assert [row["comments_timed"] for row in rows.values()] == [96, 96, 48, 40]
    assert [row["extrapolated"] for row in rows.values()] == [False, False, False, True]
    for row in rows.values():
        assert (row["rows"], row["repeats"], row["epochs"]) == (48, 2, 2)
        assert row["tokens"] == own["tokens"] > 0
        for name in ("seconds_an_epoch", "comments_per_second", "share_of_peak"):
            assert 0 < row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        assert row["peak_memory_bytes"] > 0
        if row is not own:
            assert 0 < row["times_slower_low"] <= row["times_slower"] <= row["times_slower_high"]
    assert [rows[by]["precision"] for by in ("trainer-default", "notebook")] == ["fp32", "fp32"]
    assert rows["trainer"]["precision"] == own["precision"]
    assert not (tmp_path / "results").exists()

    (kept,) = read_json(cache / "speed.json")["speeds"]  # type: ignore[misc]
    assert kept["share_of_peak"] == own["share_of_peak"]
    dry = cli("run", *words, "--baselines", "none", "--dry-run", TOXBENCH_CACHE=str(cache))
    assert dry.returncode == 0, dry.stderr
    assert "Expected  about" in dry.stderr
    assert "damaged" not in dry.stderr


def test_a_shape_is_measured_with_random_weights_and_said_to_be(
    cli: Cli, checkpoint: Path, table: Path
) -> None:
    done = cli("speed", "--backbones", "bert", "--weights", f"bert={checkpoint}", "--data",
               str(table), "--shape", "32,1,4", "--repeats", "1", "--epochs", "1",
               "--quiet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "random weights: 1 layers of 32, 4 heads" in done.stdout
    assert "evaluated comments/s" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--against", "trianer"), "did you mean 'trainer'"),
        (("--shape", "768,12"), "is not HIDDEN,LAYERS,HEADS"),
        (("--shape", "10,1,3"), "10 cannot be shared by 3 heads"),
        (("--format", "jsn"), "did you mean 'json'"),
        (("--backbones", "brt"), "did you mean 'bert'"),
        (("--weights", "nowhere"), "--weights 'nowhere'"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    cli: Cli, words: tuple[str, ...], said: str
) -> None:
    assert said in error_of(cli("speed", *words))


def test_a_missing_accelerate_is_told_with_the_remedy(cli: Cli, tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: (\n"
        "    None if name == 'accelerate' else find(name, *rest))\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(blocker), *filter(None, [os.environ.get("PYTHONPATH")])])
    error = error_of(cli("speed", "--against", "trainer", PYTHONPATH=path))
    assert "pip install 'toxbench[speed]'" in error
