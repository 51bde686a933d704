"""Parallel trials in worker processes and on Ray: the same trials, and no trial is lost."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from plugin_site import install_plugin
from ray_cluster import RayCluster

if TYPE_CHECKING:
    from conftest import Search

pytestmark = pytest.mark.slow

OPTIONS = {"sampler": "random", "pruner": "none", "trials": 2, "finalists": 1}
VOLATILE = {
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


def stable_fields(search: "Search") -> list[dict[str, Any]]:
    """Return the fields of every committed trial that do not depend on worker and time."""
    trials = [record.model_dump(mode="json") for record in search.trials]
    return sorted(
        ({k: v for k, v in trial.items() if k not in VOLATILE} for trial in trials),
        key=lambda trial: trial["number"],
    )


def new_search(search: "Search", results: Path) -> "Search":
    """Return the same search in a folder without results."""
    return type(search)(search.data, search.checkpoint, search.config, results)


def test_workers_and_ray_train_the_same_trials(
    search: "Search", tmp_path: Path, cluster: RayCluster
) -> None:
    pytest.importorskip("ray")
    search.tune(tune=OPTIONS)
    with_workers = new_search(search, tmp_path / "workers")
    with_workers.tune(tune=OPTIONS, workers=2)
    on_ray = new_search(search, tmp_path / "ray")
    on_ray.tune(tune=OPTIONS, executor="ray", ray_address=cluster.address)
    assert len(stable_fields(search)) == 2
    for parallel in (with_workers, on_ray):
        assert stable_fields(parallel) == stable_fields(search)
        parallel.check(trials=2, finalists=len(search.finalists))


def test_worker_prunes_a_bad_trial(search: "Search") -> None:
    """The sampled learning rates range from good to useless."""
    search.tune(
        tune={"trials": 8, "sampler": "random", "space": {"epochs": "4:6",
              "learning_rate": "1e-6:1e-2:log"}},
        workers=1,
    )  # fmt: skip
    pruned = [record for record in search.trials if record.state == "pruned"]
    assert pruned
    assert all(record.epochs < record.settings.epochs for record in pruned)
    search.check(trials=8)


CRASHING_PLUGIN = """
import os, signal
from toxbench import Backbone, hookimpl

class Crashing(Backbone):
    def build(self, weights, label_count):
        try:
            handle = os.open(os.environ["ONCE"], os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return super().build(weights, label_count)
        os.kill(os.getpid(), signal.SIGSEGV)

@hookimpl
def toxbench_backbones():
    return [Crashing(name="crashing", checkpoint="a/b")]
"""


def test_crashing_plugin_loses_one_trial(
    search: "Search", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path / "site", "crashing", crashing=CRASHING_PLUGIN)
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    search.tune(
        backbones=["crashing"], weights=f"crashing={search.checkpoint}",
        tune={"trials": 3, "sampler": "random"},
    )  # fmt: skip
    states = [record.state for record in search.trials]
    assert sorted(states) == ["complete", "complete", "failed"]
    (failure,) = [record for record in search.trials if record.state == "failed"]
    assert failure.reason == "WorkerDied: its process was ended by SIGSEGV"


def test_two_commands_with_workers_share_a_search(search: "Search") -> None:
    options = ("--workers", "2", "--trials", "7", "--space", "epochs=3:6",
               "--objectives", "metric,gap,seconds")  # fmt: skip
    victim, survivor = search.start(*options), search.start(*options)
    survivor.wait_until(lambda: len(search.trials) >= 2)
    victim.kill()
    assert survivor.wait() == 0, survivor.output
    assert "Pareto front of bert" in survivor.output
    assert len(search.trials) == 7
    assert {(r.state, *r.costs) for r in search.trials} == {("complete", "gap", "seconds")}
    search.check(trials=7, finalists=len(search.finalists))
