"""The number of worker processes, and the cores and GPUs of each."""

import sys
from ctypes.util import find_library
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from measured import Table
from plugin_site import install_plugin
from support import write_table

from toxbench.benchmark.plan import Plan, make_plan
from toxbench.benchmark.resources import num_workers, runs_in_process, threads_per_cell
from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings
from toxbench.executors.base import count_cores, gpu_names, worker_environ, worker_environs
from toxbench.plugin.registry import Registry

pytestmark = pytest.mark.slow

LONG = 10**7  # epochs: nothing is trained here


@pytest.fixture(autouse=True)
def _four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")


def make_small_plan(
    tmp_path: Path, checkpoint: Path, epochs: int, seeds: int, **flags: Any
) -> Plan:
    options = {
        "data": write_table(tmp_path / "table.csv"),
        "backbones": ("bert",),
        "adaptation": ("full",),
        "weights": (f"bert={checkpoint}",),
        "results": tmp_path / "results",
        "device": "cpu",
        "seeds": seeds,
        "train": {"epochs": epochs},
    }
    return make_plan(resolve(build_run_settings({}, options | flags), Registry.discover()))


@pytest.mark.parametrize(("seeds", "workers"), [(1, 1), (2, 2), (3, 3), (9, 4)])
def test_large_runs_use_several_workers(
    tmp_path: Path, checkpoint: Path, seeds: int, workers: int
) -> None:
    large = make_small_plan(tmp_path, checkpoint, LONG, seeds)
    assert num_workers(large) == workers
    assert not runs_in_process(large)  # even a single cell needs a worker, which may die


def test_small_runs_start_no_process(tmp_path: Path, checkpoint: Path) -> None:
    assert runs_in_process(make_small_plan(tmp_path, checkpoint, 2, 9))


@pytest.mark.parametrize("limit", [{"workers": 1}, {"cell_timeout": "1h"}])
def test_limits_need_a_worker(tmp_path: Path, checkpoint: Path, limit: dict[str, Any]) -> None:
    small = make_small_plan(tmp_path, checkpoint, 2, 9, **limit)
    assert not runs_in_process(small)
    assert num_workers(small) == 1


def test_foreign_plugins_need_a_worker(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path / "site", "foreign", empty="")
    monkeypatch.syspath_prepend(tmp_path / "site")
    small = make_small_plan(tmp_path, checkpoint, 2, 9)
    assert not runs_in_process(small)
    assert num_workers(small) == 1


def test_requested_workers_are_used(tmp_path: Path, checkpoint: Path) -> None:
    assert num_workers(make_small_plan(tmp_path, checkpoint, 2, 3, workers=2)) == 2
    assert num_workers(make_small_plan(tmp_path, checkpoint, LONG, 3, workers=1)) == 1


def test_resumed_runs_use_same_workers(tmp_path: Path, checkpoint: Path) -> None:
    complete = make_small_plan(tmp_path, checkpoint, LONG, 3)
    for _, key in complete.cells[:2]:
        record, probabilities = Table().cell()
        complete.store.write(record.model_copy(update={"key": key}), probabilities)
    resumed = make_small_plan(tmp_path, checkpoint, LONG, 3)
    assert len(resumed.missing) == len(complete.missing) - 2
    assert num_workers(resumed) == num_workers(complete)


@pytest.mark.parametrize(("workers", "threads"), [(1, None), (2, 2), (3, 1), (8, 1)])
def test_workers_share_cores(
    tmp_path: Path, checkpoint: Path, workers: int, threads: int | None
) -> None:
    assert threads_per_cell(make_small_plan(tmp_path, checkpoint, 2, 3, workers=workers)) == threads
    assert (
        threads_per_cell(
            make_small_plan(tmp_path, checkpoint, 2, 3, workers=workers, cpus_per_cell=3)
        )
        == 3
    )


def test_worker_environ_sets_threads() -> None:
    assert worker_environ({"OMP_NUM_THREADS": "4", "A": "b"}, 2)["OMP_NUM_THREADS"] == "2"
    assert worker_environ({"A": "b"}, None).keys() <= {"A", "LD_PRELOAD"}
    assert count_cores({"OMP_NUM_THREADS": "4,2"}) == count_cores({}) >= 1


def test_threads_per_cell_limit_workers(tmp_path: Path, checkpoint: Path) -> None:
    assert num_workers(make_small_plan(tmp_path, checkpoint, LONG, 9, cpus_per_cell=2)) == 2


def test_workers_share_gpus_in_turn() -> None:
    gpus = gpu_names({"CUDA_VISIBLE_DEVICES": "3, 5,7"}, 2)  # CUDA reports two devices
    environs = worker_environs({}, 3, 1, gpus)
    assert [environ["CUDA_VISIBLE_DEVICES"] for environ in environs] == ["3", "5", "3"]
    assert gpu_names({}, 2) == ("0", "1")
    assert all("CUDA_VISIBLE_DEVICES" not in environ for environ in worker_environs({}, 2, 1))


def test_cuda_runs_use_all_gpus(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = make_small_plan(tmp_path, checkpoint, 2, 9)
    cuda = replace(next(iter(small.devices.values())), torch=torch.device("cuda"))
    small = replace(small, devices=small.devices | {"bert": cuda})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert num_workers(small) == 2
    assert not runs_in_process(small)
    settings = small.settings.model_copy(update={"gpus_per_cell": 0.25})
    assert num_workers(replace(small, run=replace(small.run, settings=settings))) == 8


def test_installed_tcmalloc_is_preloaded() -> None:
    allocator = find_library("tcmalloc_minimal") if sys.platform == "linux" else None
    assert worker_environ({}, None).get("LD_PRELOAD") == allocator
    assert worker_environ({"LD_PRELOAD": "other.so"}, 2)["LD_PRELOAD"] == "other.so"
