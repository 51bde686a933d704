"""Cells in worker processes: the same results, and a worker that dies harms only its own cell."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from plugin_site import install_plugin
from support import write_table

import toxbench
from toxbench.store.cells import CellStore

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def command(checkpoint: Path, tmp_path: Path) -> Callable[..., list[str]]:
    table = write_table(tmp_path / "table.csv")

    def words(results: str, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "toxbench", "run", "--data", str(table), "--backbones", "bert",
            "--weights", f"bert={checkpoint}", "--results", str(tmp_path / results),
            "--epochs", "2", "--seeds", "3", "--precision", "fp32", *more,
        ]  # fmt: skip

    return words


def store(results: Path) -> CellStore:
    (folder,) = results.iterdir()
    return CellStore(folder)


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def test_side_by_side_gives_the_same_bytes(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    for results, workers, plan in (("here", "1", "5 to compute"), ("there", "2", ", 2 at once")):
        done = run(command(results, "--workers", workers))
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("Cells ")]
        assert line.endswith(plan)
        # Six epochs and three cells are reported; nothing is left after the last of each.
        assert workers == "2" or done.stderr.count(" left\n") == 7
    here, there = store(tmp_path / "here"), store(tmp_path / "there")
    alone = {record.key: tensors for record, tensors in here.cells()}
    beside = {record.key: tensors for record, tensors in there.cells()}
    assert alone.keys() == beside.keys()
    assert len(alone) == 5
    for key, tensors in alone.items():
        for part, values in tensors.items():
            assert beside[key][part].tobytes() == values.tobytes(), (key, part)
    records = [record.environment for record in there.records()]
    assert {environment.threads for environment in records} == {1}


def test_every_event_is_told_and_plugins_prints_are_no_result(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    done = run(command("results", "--workers", "3", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"]
    told = run(command("again", "--workers", "2")).stderr
    assert all(f"[{number}/5]" in told for number in range(1, 6))
    assert all(f"[bert seed {seed}] epoch 2" in told for seed in range(3))


PLUGIN = """
import os, signal, time
from pathlib import Path
from toxbench import Backbone, TrainSettings, hookimpl

class Deadly(Backbone):
    def build(self, weights, label_count):
        import torch
        module = super().build(weights, label_count)
        if torch.initial_seed() == {seed}:
            os.kill(os.getpid(), signal.SIGKILL)
        return module

class Slow(Backbone):
    def build(self, weights, label_count):
        Path(os.environ["MARK"], str(os.getpid())).touch()
        time.sleep(60)

@hookimpl
def toxbench_backbones():
    return [Deadly(name="deadly", checkpoint="a/b"), Slow(name="slow", checkpoint="a/b")]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """Install a plugin beside the tests; return the environment that finds it."""
    site = tmp_path / "site"
    install_plugin(site, "deadly", deadly=PLUGIN.format(seed=1))
    mark = tmp_path / "mark"
    mark.mkdir()
    path = os.pathsep.join([str(site), ENVIRONMENT.get("PYTHONPATH", "")])
    return {**ENVIRONMENT, "PYTHONPATH": path, "MARK": str(mark)}


def plugged(tmp_path: Path, checkpoint: Path, backbone: str, *more: str) -> list[str]:
    """Return the command that runs a backbone of the plugin in two workers."""
    table = write_table(tmp_path / "table.csv")
    return [
        sys.executable, "-m", "toxbench", "run", "--data", str(table), "--backbones", backbone,
        "--weights", f"{backbone}={checkpoint}", "--results", str(tmp_path / "results"),
        "--workers", "2", "--baselines", "none", *more,
    ]  # fmt: skip


@pytest.mark.faults(32)
def test_a_worker_that_is_killed_loses_its_cell_only(
    tmp_path: Path, checkpoint: Path, plugin: dict[str, str]
) -> None:
    words = plugged(tmp_path, checkpoint, "deadly", "--epochs", "1", "--seeds", "4")
    done = subprocess.run(words, capture_output=True, text=True, env=plugin, check=False)
    assert done.returncode == 5, done.stderr
    assert "cell deadly seed 1 failed: WorkerDied: its process was ended by SIGKILL" in done.stderr
    assert "memory" in done.stderr
    seeds = {record.key.seed for record in store(tmp_path / "results").records()}
    assert seeds == {0, 2, 3}


def test_workers_end_with_the_process_that_started_them(
    tmp_path: Path, checkpoint: Path, plugin: dict[str, str]
) -> None:
    words = plugged(tmp_path, checkpoint, "slow", "--seeds", "2")
    silent = subprocess.DEVNULL
    process = subprocess.Popen(words, stdout=silent, stderr=silent, env=plugin)
    mark = Path(plugin["MARK"])
    wait_until(lambda: len(list(mark.iterdir())) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(is_alive(int(path.name)) for path in mark.iterdir()))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its new parent does not."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_in_python_too(tmp_path: Path, checkpoint: Path) -> None:
    frame = toxbench.run(
        write_table(tmp_path / "table.csv"),
        backbones=["bert"],
        baselines=[],
        weights=f"bert={checkpoint}",
        results=tmp_path / "results",
        seeds=2,
        train={"epochs": 1},
        workers=2,
    )
    assert frame["seeds"].tolist() == [2]
