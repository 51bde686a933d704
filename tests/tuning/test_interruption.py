"""A search that is killed at any write to the database draws the trials of an undisturbed one."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import distribution_to_json
from sqlalchemy import event

from toxbench import Choice, Range, Space, TrainSettings
from toxbench.records import TrialRecord
from toxbench.settings import SearchCost, TuneSettings
from toxbench.store.trials import TrialStore
from toxbench.tuning.space import check_space
from toxbench.tuning.spec import PRUNING_STEPS, Sampler, make_pruner
from toxbench.tuning.storage import open_storage, sqlite_url
from toxbench.tuning.study import SampledTrial, SharedStudy, Worker

pytestmark = pytest.mark.slow

BASE = TrainSettings()
SPACE: Space = {
    "learning_rate": Range(1e-5, 1e-3, log=True),
    "loss": Choice(("bce", "focal")),
    "focal_gamma": Range(0.5, 3.0, when=("loss", "focal")),
}
TRIALS = 8


class Killed(BaseException):
    """The process ends."""


def search(
    folder: Path, pruner: str, costs: tuple[SearchCost, ...], writes: float = float("inf")
) -> list[TrialRecord]:
    """Start or resume a search whose scores and costs are computed from the settings.

    Raises:
        Killed: before the database is written for the ``writes``-th time.
    """
    settings = TuneSettings(trials=TRIALS, pruner=pruner)
    storage, _ = open_storage(sqlite_url(folder), folder)
    remaining = writes

    def count(connection: object) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            raise Killed

    event.listen(storage.engine, "commit", count)
    sampler = Sampler(settings, check_space(SPACE, BASE, "space"), BASE)
    store = TrialStore(folder / "trials")
    try:
        with Worker(folder / ".workers") as worker:
            pruner_of_study = make_pruner(settings)
            study = SharedStudy("search", storage, store, worker, sampler, pruner_of_study, costs)
            try:
                for sampled in study.sample_trials(TRIALS, lambda _: False, lambda _: None):
                    if sampled is None:
                        time.sleep(0.01)
                        continue
                    study.commit(sampled, train(sampled, sampler, costs))
            finally:
                study.close()
    finally:
        storage.remove_session()
        storage.engine.dispose()
    return store.records()


def train(sampled: SampledTrial, sampler: Sampler, costs: tuple[SearchCost, ...]) -> TrialRecord:
    """Report a score that grows with the steps; return the record.

    A trial with costs is not pruned, but the budget ends some.
    """
    trial, slot = sampled
    settings = sampler.sample_settings(trial, slot)
    value, steps = 1 / (1 + abs(settings.learning_rate - 2e-4) * 1e4), {}
    is_pruned = bool(costs) and slot == 2
    for step in range(1, 1 if costs else PRUNING_STEPS + 1):
        steps[step] = value * step
        trial.report(steps[step], step)
        if slot > 0 and trial.should_prune():
            is_pruned = True
            break
    return TrialRecord(
        study="search", number=trial.number, state="pruned" if is_pruned else "complete",
        reason="", is_default=slot == 0, params=trial.params,
        distributions={n: distribution_to_json(d) for n, d in trial.distributions.items()},
        metric="micro_f1", settings=settings, seed=0, folds=(0,), scores=(),
        value=None if is_pruned else value,
        costs={} if is_pruned else dict.fromkeys(costs, settings.learning_rate),
        epoch_scores={}, step_scores=steps, epochs=len(steps), seconds=0, thresholds={},
        finished_at="",
    )  # fmt: skip


def drawn(records: list[TrialRecord]) -> list[Any]:
    return [(r.number, r.plan_index, r.state, r.step_scores, r.params, r.costs) for r in records]


@pytest.mark.faults(54)
@pytest.mark.parametrize(
    ("pruner", "costs"), [("median", ()), ("hyperband", ()), ("none", ("gap", "seconds"))]
)
def test_kills_do_not_change_the_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str, costs: tuple[SearchCost, ...]
) -> None:
    monkeypatch.setattr("toxbench.tuning.study._UNSIGNED_SECONDS", 0.1)
    expected = drawn(search(tmp_path / "undisturbed", pruner, costs))
    states = {state for _, _, state, *_ in expected}
    assert states == {"complete", "pruned"}
    rng = random.Random(5)
    kills = 0
    for _ in range(5):  # a trial writes 20 to 40 times; a busy machine also polls less often
        try:
            search(tmp_path / "killed", pruner, costs, rng.randint(15, 60))
        except Killed:
            kills += 1
    assert kills >= 2
    assert drawn(search(tmp_path / "killed", pruner, costs)) == expected
