"""Trials side by side: in worker processes and on Ray, the same trials, and none lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from plugin_site import install_plugin
from ray_cluster import RayCluster

if TYPE_CHECKING:
    from conftest import Search

SAME = {"sampler": "random", "pruner": "none", "trials": 2, "finalists": 1}
DIFFERENT = {
    "worker",
    "uid",
    "seconds",
    "finished_at",
    "checksum",
    "epoch_scores",
    "system_attributes",
}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    started = RayCluster()
    started.add("one", cpus=2)
    yield started
    started.close()


def trials(search: "Search") -> list[dict[str, Any]]:
    """What every committed trial holds that is not of its worker or the clock."""
    found = [record.model_dump(mode="json") for record in search.trials]
    return sorted(
        ({k: v for k, v in one.items() if k not in DIFFERENT} for one in found),
        key=lambda one: one["number"],
    )


def test_workers_and_ray_train_the_same_trials(
    search: "Search", tmp_path: Path, cluster: RayCluster
) -> None:
    pytest.importorskip("ray")
    search.tune(tune=SAME)
    beside, there = search_in(search, tmp_path / "beside"), search_in(search, tmp_path / "there")
    beside.tune(tune=SAME, workers=2)
    there.tune(tune=SAME, executor="ray", ray_address=cluster.address)
    assert len(trials(search)) == 2
    assert trials(beside) == trials(search)
    assert trials(there) == trials(search)
    for other in (beside, there):
        other.check(trials=2)


def search_in(search: "Search", results: Path) -> "Search":
    """The same search, with nothing done of it."""
    return type(search)(search.data, search.checkpoint, search.config, results)


def test_a_trial_is_ended_early_in_a_worker(search: "Search") -> None:
    """A search space of a good and a hopeless rate; the median of the first trials decides."""
    search.tune(
        tune={"trials": 8, "sampler": "random", "space": {"epochs": "4:6",
              "learning_rate": "1e-6:1e-2:log"}},
        workers=1,
    )  # fmt: skip
    pruned = [record for record in search.trials if record.state == "pruned"]
    assert pruned
    assert all(record.epochs < record.settings.epochs for record in pruned)
    search.check(trials=8)


DEADLY = """
import os, signal
from toxbench import Backbone, hookimpl

class Deadly(Backbone):
    def build(self, weights, label_count):
        try:
            handle = os.open(os.environ["ONCE"], os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return super().build(weights, label_count)
        os.kill(os.getpid(), signal.SIGSEGV)

@hookimpl
def toxbench_backbones():
    return [Deadly(name="deadly", checkpoint="a/b")]
"""


def test_a_plugin_that_crashes_costs_one_trial(
    search: "Search", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path / "site", "deadly", deadly=DEADLY)
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    search.tune(
        backbones=["deadly"], weights=f"deadly={search.checkpoint}",
        tune={"trials": 3, "sampler": "random"},
    )  # fmt: skip
    states = [record.state for record in search.trials]
    assert sorted(states) == ["complete", "complete", "failed"]
    (lost,) = [record for record in search.trials if record.state == "failed"]
    assert lost.reason == "WorkerDied: its process was ended by SIGSEGV"


def test_two_commands_with_workers_share_a_search(search: "Search") -> None:
    words = ("--workers", "2", "--trials", "7", "--space", "epochs=3:6")
    one, two = search.start(*words), search.start(*words)
    two.until(lambda: len(search.trials) >= 2)
    one.kill()
    assert two.wait() == 0, two.said
    search.check(trials=7)
