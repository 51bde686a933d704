"""Cells on a real Ray cluster of several nodes: the same bytes, whatever happens to a node."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from left_behind import Results, assert_same, processes_with
from plugin_site import install_plugin
from ray_cluster import RayCluster
from support import write_table

import toxbench
from toxbench.errors import SettingsError, TryAgainError

pytest.importorskip("ray")

PLUGIN = """
import os, signal, time
from pathlib import Path
from toxbench import Backbone, hookimpl

class Noted(Backbone):
    def build(self, weights, label_count):
        import torch
        module = super().build(weights, label_count)
        seed = torch.initial_seed()
        Path(os.environ["MARK"], f"{os.environ.get('WHICH_NODE')}-{seed}-{os.getpid()}").touch()
        if self.name == "deadly" and seed == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.name == "deadly" and seed == 2:
            time.sleep(600)
        if self.name == "slow":
            time.sleep(3)
        return module

@hookimpl
def toxbench_backbones():
    return [Noted(name=name, checkpoint="a/b") for name in ("deadly", "slow")]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    started = RayCluster()
    started.add("one", cpus=1)
    started.add("two", cpus=1)
    yield started
    started.close()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the plugin for this test's commands; return where it notes what it builds."""
    install_plugin(tmp_path / "site", "noted", noted=PLUGIN)
    mark = tmp_path / "mark"
    mark.mkdir()
    monkeypatch.setenv("MARK", str(mark))
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return mark


@pytest.fixture
def words(checkpoint: Path, tmp_path: Path) -> Callable[..., list[str]]:
    table = write_table(tmp_path / "table.csv")

    def make(backbone: str, results: str, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "toxbench", "run", "--data", str(table), "--backbones", backbone,
            "--weights", f"{backbone}={checkpoint}", "--results", str(tmp_path / results),
            "--epochs", "2", "--baselines", "none", "--precision", "fp32", *more,
        ]  # fmt: skip

    return make


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    table = write_table(tmp_path / "table.csv")

    def call(results: str, **more: Any) -> Any:
        return toxbench.run(
            table, backbones=["bert"], baselines=["tfidf-logreg"], weights=f"bert={checkpoint}",
            results=tmp_path / results, seeds=2, train={"epochs": 2, "precision": "fp32"}, **more,
        )  # fmt: skip

    return call


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until(holds: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_a_cluster_gives_the_same_bytes_and_models(
    cluster: RayCluster, run: Callable[..., Any], tmp_path: Path
) -> None:
    run("here", workers=1, save_models="all")
    run("there", executor="ray", ray_address=cluster.address, save_models="all")
    here, there = Results(tmp_path / "here"), Results(tmp_path / "there")
    assert len(here.cells) == 3
    assert_same(there, here)
    for path in (here.folder / "models").rglob("*.safetensors"):
        assert (there.folder / path.relative_to(here.folder)).read_bytes() == path.read_bytes()


def test_a_run_outlives_a_node_that_is_killed_in_the_middle_of_a_cell(
    cluster: RayCluster, plugin: Path, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    cluster.add("three", cpus=1)
    more = ("--executor", "ray", "--ray-address", cluster.address)
    process = start(words("slow", "there", "--seeds", "5", *more))
    wait_until(lambda: len(list(plugin.iterdir())) >= 4)
    name = max(plugin.iterdir(), key=lambda path: path.stat().st_mtime_ns).name.partition("-")[0]
    cluster.kill(name)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "ray" not in (out + err).lower().replace("micro-f1", "")
    begun = [path.name.split("-")[1] for path in plugin.iterdir()]
    assert len(begun) > len(set(begun)) == 5  # what was lost was begun again
    here = subprocess.run(
        words("slow", "here", "--seeds", "5", "--workers", "2"), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert here.returncode == 0, here.stderr
    assert_same(Results(tmp_path / "there"), Results(tmp_path / "here"))
    cluster.add(name, cpus=1)


def test_a_cell_that_crashes_or_hangs_costs_only_itself(
    cluster: RayCluster, plugin: Path, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    more = ("--seeds", "4", "--cell-timeout", "40s")
    there = ("--executor", "ray", "--ray-address", cluster.address)
    done = subprocess.run(
        words("deadly", "results", *more, *there), capture_output=True, text=True, check=False
    )
    assert done.returncode == 5, done.stderr
    assert "cell deadly seed 1 failed: WorkerDied: its process was ended by SIGSEGV" in done.stderr
    assert "cell deadly seed 2 failed: CellTimeout: not done within 40 s" in done.stderr
    kept = Results(tmp_path / "results").store
    assert {record.key.seed for record in kept.records()} == {0, 3}


def test_a_run_that_is_ended_leaves_nothing_running(
    cluster: RayCluster, plugin: Path, words: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TOXBENCH_MARK", mark)
    there = ("--executor", "ray", "--ray-address", cluster.address)
    process = start(words("slow", "results", "--seeds", "40", *there))
    wait_until(lambda: len(list(plugin.iterdir())) >= 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    wait_until(lambda: processes_with(f"TOXBENCH_MARK={mark}") == [], 60)


def test_a_run_whose_head_is_lost_ends_and_goes_on_elsewhere(
    plugin: Path, words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray's own seconds for which a head may be away; 60 if unset.
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    mortal = RayCluster()
    mortal.add("only", cpus=1)
    there = ("--executor", "ray", "--ray-address", mortal.address)
    process = start(words("slow", "there", "--seeds", "3", *there))
    wait_until(lambda: len(list(plugin.iterdir())) >= 2)
    mortal.kill("head")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    (error,) = [line for line in err.splitlines() if line.startswith("toxbench: error:")]
    assert "the Ray cluster was lost; finished work is stored" in error
    assert len(Results(tmp_path / "there").cells) == 1
    mortal.close()
    command = words("slow", "there", "--seeds", "3", "--workers", "1")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 cells, 1 stored already" in done.stderr


def test_a_cell_that_no_node_can_hold_is_refused(
    cluster: RayCluster, run: Callable[..., Any]
) -> None:
    with pytest.raises(SettingsError, match=r"needs 64 CPUs .*largest has [1-9].*--cpus-per-cell"):
        run("results", executor="ray", ray_address=cluster.address, cpus_per_cell=64)


def test_no_cluster_at_the_address_is_said_soon(run: Callable[..., Any]) -> None:
    with pytest.raises(TryAgainError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 "):
        run("results", executor="ray", ray_address="127.0.0.1:1")


def test_ray_has_to_be_installed(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r'pip install "toxbench\[ray\]"'):
        run("results", executor="ray")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"ray_address": "auto"}, "--ray-address needs --executor ray"),
        ({"executor": "ray", "ray_address": "me@host"}, "ray_address = .me@host"),
        ({"executor": "dask"}, "executor"),
        ({"gpus_per_cell": 1.5}, "gpus_per_cell"),
    ],
)
def test_impossible_settings_are_refused(
    run: Callable[..., Any], asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        run("results", **asked)
