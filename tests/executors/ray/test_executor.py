"""Cells on a real Ray cluster of several nodes: identical results, even if a node is lost."""

import os
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
from left_behind import Results, assert_same, processes_of
from plugin_site import install_plugin
from ray_cluster import RayCluster
from support import TIMEOUT, wait_until, write_table
from traps import set_traps, sprung

import toxbench
from toxbench.errors import SettingsError, TryAgainError

pytestmark = pytest.mark.slow

pytest.importorskip("ray")

Command = Callable[..., list[str]]
Run = Callable[..., Any]

PLUGIN = """
import os, signal, time
from pathlib import Path
from toxbench import Backbone, hookimpl

class Recording(Backbone):
    def build(self, weights, label_count):
        import torch
        module = super().build(weights, label_count)
        seed = torch.initial_seed()
        Path(os.environ["BUILDS"], f"{os.environ.get('NODE_NAME')}-{seed}-{os.getpid()}").touch()
        if self.name == "deadly" and seed == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.name == "deadly" and seed == 2:
            time.sleep(600)
        if self.name == "slow":
            time.sleep(3)
        return module

@hookimpl
def toxbench_backbones():
    return [Recording(name=name, checkpoint="a/b") for name in ("deadly", "slow")]
"""


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the plugin; return a folder with a file NODE-SEED-PID for each module it builds."""
    install_plugin(tmp_path / "site", "recording", recording=PLUGIN)
    folder = tmp_path / "builds"
    folder.mkdir()
    monkeypatch.setenv("BUILDS", str(folder))
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def make_command(checkpoint: Path, tmp_path: Path) -> Command:
    table = write_table(tmp_path / "table.csv")

    def make(backbone: str, results: str, *options: str) -> list[str]:
        return [
            "run", "--verbose", "--data", str(table), "--backbones", backbone,
            "--weights", f"{backbone}={checkpoint}", "--results", str(tmp_path / results),
            "--epochs", "2", "--baselines", "none", "--precision", "fp32", *options,
        ]  # fmt: skip

    return make


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    table = write_table(tmp_path / "table.csv")

    def call(results: str, **options: Any) -> Any:
        return toxbench.run(
            table, backbones=["bert"], baselines=["tfidf-logreg"], weights=f"bert={checkpoint}",
            results=tmp_path / results, seeds=2, train={"epochs": 2, "precision": "fp32"},
            **options,
        )  # fmt: skip

    return call


def ray_options(cluster: RayCluster) -> list[str]:
    return ["--executor", "ray", "--ray-address", cluster.address]


@pytest.mark.faults(45)
def test_cluster_gives_same_bytes(
    cluster: RayCluster, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside").mkdir()
    set_traps(tmp_path / "beside")
    monkeypatch.chdir(tmp_path / "beside")
    run("local", workers=1, save_models="all")
    run("cluster", executor="ray", ray_address=cluster.address, save_models="all")
    assert sprung(tmp_path / "beside") == []
    local, remote = Results(tmp_path / "local"), Results(tmp_path / "cluster")
    assert len(local.cells) == 3
    assert_same(remote, local)
    for path in (local.folder / "models").rglob("*.safetensors"):
        assert (remote.folder / path.relative_to(local.folder)).read_bytes() == path.read_bytes()


def test_killed_node_does_not_end_run(
    cluster: RayCluster, builds: Path, forks: Forks, make_command: Command, tmp_path: Path
) -> None:
    cluster.add("three", cpus=1)
    words = make_command("slow", "cluster", "--seeds", "4", *ray_options(cluster))
    process = forks.stream(*words, cwd=tmp_path)
    wait_until(lambda: len(list(builds.iterdir())) >= 4)
    latest = max(builds.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    node = latest.name.partition("-")[0]
    cluster.kill(node)
    stdout, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, stderr
    assert "ray" not in (stdout + stderr).lower().replace("micro-f1", "")
    seeds = [path.name.split("-")[1] for path in builds.iterdir()]
    assert len(seeds) > len(set(seeds)) == 4  # the lost cell was started again
    local_command = make_command("slow", "local", "--seeds", "4", "--workers", "2")
    local = forks.run(*local_command)
    assert local.code == 0, local.err
    assert_same(Results(tmp_path / "cluster"), Results(tmp_path / "local"))
    cluster.add(node, cpus=1)


def test_crash_or_hang_loses_only_its_cell(
    cluster: RayCluster, builds: Path, forks: Forks, make_command: Command, tmp_path: Path
) -> None:
    options = ("--seeds", "4", "--cell-timeout", "40s", *ray_options(cluster))
    result = forks.run(*make_command("deadly", "results", *options))
    assert result.code == 5, result.err
    assert "cell deadly seed 1 failed: WorkerDied: its process was ended by SIGSEGV" in result.err
    assert "cell deadly seed 2 failed: CellTimeout: not done within 40 s" in result.err
    store = Results(tmp_path / "results").store
    assert {record.key.seed for record in store.records()} == {0, 3}


def test_interrupted_run_leaves_no_process(
    cluster: RayCluster, builds: Path, forks: Forks, make_command: Command, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TOXBENCH_MARK", mark)
    words = make_command("slow", "results", "--seeds", "40", *ray_options(cluster))
    process = forks.stream(*words, cwd=tmp_path)
    wait_until(lambda: len(list(builds.iterdir())) >= 1)
    os.killpg(process.pid, signal.SIGINT)  # like a terminal
    _, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    wait_until(lambda: processes_of(tmp_path, f"TOXBENCH_MARK={mark}") == [])


def test_lost_head_ends_run_that_resumes(
    builds: Path, forks: Forks, make_command: Command, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Seconds for which Ray waits for a lost head; 60 by default.
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    cluster = RayCluster()
    cluster.add("only", cpus=1)
    words = make_command("slow", "results", "--seeds", "3", *ray_options(cluster))
    process = forks.stream(*words, cwd=tmp_path)
    wait_until(lambda: len(list(builds.iterdir())) >= 2)
    cluster.kill("head")
    _, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 75, stderr
    (error,) = [line for line in stderr.splitlines() if line.startswith("toxbench: error:")]
    assert "the Ray cluster was lost; finished work is stored" in error
    assert len(Results(tmp_path / "results").cells) == 1
    cluster.close()
    local_command = make_command("slow", "results", "--seeds", "3", "--workers", "1")
    resumed = forks.run(*local_command)
    assert resumed.code == 0, resumed.err
    assert "3 cells, 1 stored already" in resumed.err


def test_too_large_cells_are_refused(cluster: RayCluster, run: Run) -> None:
    with pytest.raises(SettingsError, match=r"needs 64 CPUs .*largest has [1-9].*--cpus-per-cell"):
        run("results", executor="ray", ray_address=cluster.address, cpus_per_cell=64)


def test_missing_cluster_is_an_error(run: Run) -> None:
    with pytest.raises(TryAgainError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 "):
        run("results", executor="ray", ray_address="127.0.0.1:1")


def test_missing_ray_package_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r'pip install "toxbench\[ray\]"'):
        run("results", executor="ray")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray_address": "auto"}, "--ray-address needs --executor ray"),
        ({"executor": "ray", "ray_address": "me@host"}, "ray_address = .me@host"),
        ({"executor": "dask"}, "executor"),
        ({"gpus_per_cell": 1.5}, "gpus_per_cell"),
    ],
)
def test_impossible_settings_are_refused(run: Run, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        run("results", **options)
