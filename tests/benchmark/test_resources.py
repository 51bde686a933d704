"""How many processes compute cells: what pays, the same for a run and for what is left of it."""

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
from toxbench.executors.resources import cores, environ_of_a_worker, environs_of_workers, gpu_names
from toxbench.plugin.registry import Registry

LONG = 10**7  # epochs: nothing is trained here


@pytest.fixture(autouse=True)
def _four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")


def plan(tmp_path: Path, checkpoint: Path, epochs: int, seeds: int, **flags: Any) -> Plan:
    given = {
        "data": write_table(tmp_path / "table.csv"),
        "backbones": ("bert",),
        "weights": (f"bert={checkpoint}",),
        "results": tmp_path / "results",
        "device": "cpu",
        "seeds": seeds,
        "train": {"epochs": epochs},
    }
    return make_plan(resolve(build_run_settings({}, given | flags), Registry.discover()))


@pytest.mark.parametrize(("seeds", "workers"), [(1, 1), (2, 2), (3, 3), (9, 4)])
def test_a_large_run_has_a_worker_for_each_cell_and_thread(
    tmp_path: Path, checkpoint: Path, seeds: int, workers: int
) -> None:
    large = plan(tmp_path, checkpoint, LONG, seeds)
    assert num_workers(large) == workers
    assert not runs_in_process(large)  # not even one cell: its worker may die


def test_a_small_run_starts_no_process(tmp_path: Path, checkpoint: Path) -> None:
    assert runs_in_process(plan(tmp_path, checkpoint, 2, 9))


@pytest.mark.parametrize("asked", [{"workers": 1}, {"cell_timeout": "1h"}])
def test_unless_it_was_asked_for(tmp_path: Path, checkpoint: Path, asked: dict[str, Any]) -> None:
    small = plan(tmp_path, checkpoint, 2, 9, **asked)
    assert not runs_in_process(small)
    assert num_workers(small) == 1


def test_foreign_plugin_gets_a_process(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path / "site", "foreign", empty="")
    monkeypatch.syspath_prepend(tmp_path / "site")
    small = plan(tmp_path, checkpoint, 2, 9)
    assert not runs_in_process(small)
    assert num_workers(small) == 1


def test_who_asks_for_workers_gets_them(tmp_path: Path, checkpoint: Path) -> None:
    assert num_workers(plan(tmp_path, checkpoint, 2, 3, workers=2)) == 2
    assert num_workers(plan(tmp_path, checkpoint, LONG, 3, workers=1)) == 1


def test_what_is_left_of_a_run_has_as_many(tmp_path: Path, checkpoint: Path) -> None:
    whole = plan(tmp_path, checkpoint, LONG, 3)
    for _, key in whole.cells[:2]:
        record, probabilities = Table().cell()
        whole.store.write(record.model_copy(update={"key": key}), probabilities)
    left = plan(tmp_path, checkpoint, LONG, 3)
    assert len(left.missing) == len(whole.missing) - 2
    assert num_workers(left) == num_workers(whole)


@pytest.mark.parametrize(("workers", "threads"), [(1, None), (2, 2), (3, 1), (8, 1)])
def test_threads_are_shared_out(
    tmp_path: Path, checkpoint: Path, workers: int, threads: int | None
) -> None:
    assert threads_per_cell(plan(tmp_path, checkpoint, 2, 3, workers=workers)) == threads
    assert threads_per_cell(plan(tmp_path, checkpoint, 2, 3, workers=workers, cpus_per_cell=3)) == 3


def test_a_worker_is_told_its_threads() -> None:
    assert environ_of_a_worker({"OMP_NUM_THREADS": "4", "A": "b"}, 2)["OMP_NUM_THREADS"] == "2"
    assert environ_of_a_worker({"A": "b"}, None).keys() <= {"A", "LD_PRELOAD"}
    assert cores({"OMP_NUM_THREADS": "4,2"}) == cores({}) >= 1


def test_as_many_workers_as_the_threads_per_cell_leave_room_for(
    tmp_path: Path, checkpoint: Path
) -> None:
    assert num_workers(plan(tmp_path, checkpoint, LONG, 9, cpus_per_cell=2)) == 2


def test_each_worker_owns_a_gpu() -> None:
    named = gpu_names({"CUDA_VISIBLE_DEVICES": "3, 5,7"}, 2)  # CUDA found two of them
    seen = [own["CUDA_VISIBLE_DEVICES"] for own in environs_of_workers({}, 3, 1, named)]
    assert seen == ["3", "5", "3"]
    assert gpu_names({}, 2) == ("0", "1")
    assert all("CUDA_VISIBLE_DEVICES" not in own for own in environs_of_workers({}, 2, 1))


def test_on_cuda_as_many_workers_as_gpus(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = plan(tmp_path, checkpoint, 2, 9)
    cuda = replace(next(iter(small.devices.values())), torch=torch.device("cuda"))
    small = replace(small, devices=small.devices | {"bert": cuda})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert num_workers(small) == 2
    assert not runs_in_process(small)
    settings = small.settings.model_copy(update={"gpus_per_cell": 0.25})
    assert num_workers(replace(small, run=replace(small.run, settings=settings))) == 8


def test_workers_allocate_with_tcmalloc_where_it_is_and_nothing_else_is_named() -> None:
    found = find_library("tcmalloc_minimal") if sys.platform == "linux" else None
    assert environ_of_a_worker({}, None).get("LD_PRELOAD") == found
    assert environ_of_a_worker({"LD_PRELOAD": "mine.so"}, 2)["LD_PRELOAD"] == "mine.so"
