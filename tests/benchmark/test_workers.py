"""Cells in worker processes: identical results, and a worker that dies loses only its cell."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Forks
from plugin_site import install_plugin
from support import wait_until, write_table

import toxbench
from toxbench.store.cells import CellStore

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(checkpoint: Path, tmp_path: Path) -> Callable[..., list[str]]:
    table = write_table(tmp_path / "table.csv")

    def make_command(results: str, *options: str) -> list[str]:
        return [
            "run", "--verbose", "--data", str(table), "--backbones", "bert",
            "--weights", f"bert={checkpoint}", "--results", str(tmp_path / results),
            "--epochs", "2", "--precision", "fp32", "--adaptation", "full", *options,
        ]  # fmt: skip

    return make_command


def open_store(results: Path) -> CellStore:
    (folder,) = results.iterdir()
    return CellStore(folder)


def test_parallel_workers_give_same_bytes(
    cli: Cli, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    def in_new_interpreters(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "toxbench", *words], cwd=tmp_path,
                              capture_output=True, text=True, check=False)  # fmt: skip

    for workers, start, plan in (
        ("1", cli, "3 to compute"), ("2", in_new_interpreters, ", 2 at once")
    ):  # fmt: skip
        options = ("--workers", workers, "--seeds", "2", "--baselines", "tfidf-logreg")
        process = start(*command(f"workers-{workers}", *options))
        assert process.returncode == 0, process.stderr
        (line,) = [line for line in process.stderr.splitlines() if line.startswith("Cells ")]
        assert line.endswith(plan)
        # Of four epochs and two cells, the last ones are reported without the time left.
        assert workers == "2" or process.stderr.count(" left\n") == 4
    serial, parallel = open_store(tmp_path / "workers-1"), open_store(tmp_path / "workers-2")
    serial_cells = {record.key: tensors for record, tensors in serial.cells()}
    parallel_cells = {record.key: tensors for record, tensors in parallel.cells()}
    assert serial_cells.keys() == parallel_cells.keys()
    assert len(serial_cells) == 3
    for key, tensors in serial_cells.items():
        for part, values in tensors.items():
            assert parallel_cells[key][part].tobytes() == values.tobytes(), (key, part)
    assert {record.environment.threads for record in parallel.records()} == {1}


def test_workers_report_every_event(cli: Cli, command: Callable[..., list[str]]) -> None:
    process = cli(*command("json", "--workers", "3", "--seeds", "3", "--json"))
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["rows"]
    progress = cli(*command("results", "--workers", "2", "--seeds", "3")).stderr
    assert all(f"[{number}/5]" in progress for number in range(1, 6))
    assert all(f"[bert seed {seed}] epoch 2" in progress for seed in range(3))


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
    """Install a plugin; return the environment in which it is on the path."""
    site = tmp_path / "site"
    install_plugin(site, "deadly", deadly=PLUGIN.format(seed=1))
    mark = tmp_path / "mark"
    mark.mkdir()
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "MARK": str(mark)}


def plugin_command(tmp_path: Path, checkpoint: Path, backbone: str, *options: str) -> list[str]:
    """Return the command that runs a backbone of the plugin in two workers."""
    table = write_table(tmp_path / "table.csv")
    return [
        "run", "--verbose", "--data", str(table),
        "--backbones", backbone,
        "--weights", f"{backbone}={checkpoint}", "--results", str(tmp_path / "results"),
        "--workers", "2", "--baselines", "none", *options,
    ]  # fmt: skip


@pytest.mark.faults(32)
def test_killed_worker_loses_only_its_cell(
    cli: Cli, tmp_path: Path, checkpoint: Path, plugin: dict[str, str]
) -> None:
    command = plugin_command(tmp_path, checkpoint, "deadly", "--epochs", "1", "--seeds", "4")
    process = cli(*command, **plugin)
    assert process.returncode == 5, process.stderr
    error = "cell deadly seed 1 failed: WorkerDied: its process was ended by SIGKILL"
    assert error in process.stderr
    assert "memory" in process.stderr
    seeds = {record.key.seed for record in open_store(tmp_path / "results").records()}
    assert seeds == {0, 2, 3}


def test_workers_exit_with_parent(
    forks: Forks, tmp_path: Path, checkpoint: Path, plugin: dict[str, str]
) -> None:
    command = plugin_command(tmp_path, checkpoint, "slow", "--seeds", "2")
    process = forks.start(*command, environment=plugin)
    mark = Path(plugin["MARK"])
    wait_until(lambda: len(list(mark.iterdir())) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_alive(int(path.name)) for path in mark.iterdir()))


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_python_api_uses_workers(tmp_path: Path, checkpoint: Path) -> None:
    bench = toxbench.run(
        write_table(tmp_path / "table.csv"),
        backbones=["bert"],
        baselines=[],
        weights=f"bert={checkpoint}",
        results=tmp_path / "results",
        seeds=2,
        train={"epochs": 1},
        workers=2,
    )
    assert bench.leaderboard["seeds"].tolist() == [2]
