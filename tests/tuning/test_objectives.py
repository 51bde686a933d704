"""Searches with several objectives. Scores are scripted; everything else is real."""

import csv
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toxbench import EpochRecord
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.data.protocol import Protocol
from toxbench.errors import CellsFailedError, SettingsError
from toxbench.settings import TrainSettings
from toxbench.store.files import read_cell
from toxbench.tuning.trial import Configuration, OnEpoch, TrialResult

if TYPE_CHECKING:
    from tuning.conftest import Search, Study

pytestmark = pytest.mark.slow

TUNE = {"objectives": "metric,gap", "trials": 6, "sampler": "random"}
Measures = Callable[[TrainSettings, int], tuple[float, float]]  # settings, seed -> score, gap


def random_measures(settings: TrainSettings, seed: int) -> tuple[float, float]:
    rng = random.Random(f"{settings} {seed}")
    return rng.random(), rng.random()


@contextmanager
def scripted(measures: Measures) -> Iterator[list[tuple[str, int]]]:
    """Replace training by measures; yield a list of the settings and the seed of each training."""
    trainings: list[tuple[str, int]] = []

    def train(
        factory: TrainerFactory, data: Protocol, configuration: Configuration, metric: str,
        on_epoch: OnEpoch,
    ) -> TrialResult:  # fmt: skip
        settings = configuration.settings
        trainings.append((settings.model_dump_json(), configuration.seed))
        score, gap = measures(settings, configuration.seed)
        if score < 0:
            raise CellsFailedError("the loss is not finite")
        for epoch in range(1, settings.epochs + 1):
            scores = {metric: score}
            on_epoch(0, EpochRecord(epoch=epoch, train_loss=0, validation=scores, seconds=0))
        thresholds = {"0.5": (0.5,) * len(data.comments.labels)}
        costs = dict.fromkeys(configuration.costs, gap)
        return TrialResult((score,) * len(configuration.folds), thresholds, costs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toxbench.tuning.trial.train_on_folds", train)
        yield trainings


@pytest.fixture(scope="module")
def _searched(inputs: "Search", tmp_path_factory: pytest.TempPathFactory) -> "Search":
    search = inputs.copy(tmp_path_factory.mktemp("objectives") / "results")
    with scripted(random_measures):
        search.tune(tune=TUNE)
    return search


@pytest.fixture
def searched(_searched: "Search", tmp_path: Path) -> "Search":
    """A copy of a finished search with two objectives."""
    return _searched.copy(tmp_path / "searched")


def front_of(search: "Search") -> set[int]:
    """Return the numbers of the trials that no other trial beats, from their records."""
    points = {r.number: (r.value or 0.0, r.costs["gap"]) for r in search.trials}
    return {
        number
        for number, (score, gap) in points.items()
        if not any(s >= score and g <= gap and (s, g) != (score, gap) for s, g in points.values())
    }


def test_front_has_the_trials_that_none_beats(searched: "Search", study: "type[Study]") -> None:
    front, trials = front_of(searched), searched.trials
    assert 1 < len(front) < len(trials)
    with (searched.study / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == "search"]
    assert {int(row["number"]) for row in rows if row["on Pareto front"] == "True"} == front
    assert [row["cost gap"] for row in rows] == [str(r.costs["gap"]) for r in trials]
    stored = [(trial.number, trial.values) for trial in study(searched.url).trials]
    assert stored == [(r.number, [r.value, r.costs["gap"]]) for r in trials]
    assert (searched.study / "front.svg").exists()


def test_trials_with_costs_are_not_pruned(searched: "Search") -> None:
    """Half of the random scores are below the median of the earlier ones."""
    assert {record.state for record in searched.trials} == {"complete"}
    assert all(record.epochs == record.settings.epochs for record in searched.trials)


def test_finalists_are_on_the_front(searched: "Search") -> None:
    front = [record for record in searched.trials if record.number in front_of(searched)]
    best = max(front, key=lambda record: record.value or 0.0)
    finalists = sorted(searched.finalists, key=lambda record: record.plan_index)
    assert finalists[0].settings == best.settings
    default = searched.trials[0].settings
    assert {f.settings for f in finalists} <= {default, *(record.settings for record in front)}


def test_pick_makes_its_trial_the_result(searched: "Search") -> None:
    unpicked = searched.tuned_toml
    tuned_settings = TrainSettings(**unpicked["train"])
    picked = next(
        record
        for record in searched.trials
        if record.number in front_of(searched) and record.settings != tuned_settings
    )
    searched.database.unlink()
    with scripted(lambda settings, seed: (float(settings != picked.settings), 0.0)) as trainings:
        searched.tune(tune=TUNE | {"pick": picked.number})
        assert TrainSettings(**searched.tuned_toml["train"]) == picked.settings
        assert searched.tuned_toml["tuning"]["picked_trial"] == picked.number
        assert picked.settings in {
            read_cell(p)[0].settings for p in searched.results.glob("*/cells/*")
        }
        assert {seed for _, seed in trainings} <= {10_002}  # of finalists
        searched.tune(tune=TUNE)
    assert searched.tuned_toml == unpicked


def test_pick_off_the_front_is_refused(searched: "Search") -> None:
    front, files = front_of(searched), searched.files
    with scripted(random_measures) as trainings, pytest.raises(SettingsError) as refused:
        searched.tune(tune=TUNE | {"pick": min(set(range(6)) - front)})
    assert refused.match(f"which are {', '.join(map(str, sorted(front)))}$")
    assert (trainings, searched.files) == ([], files)


def test_picked_trial_that_diverges_is_no_result(search: "Search") -> None:
    def measures(settings: TrainSettings, seed: int) -> tuple[float, float]:
        is_default = settings.epochs == 4
        return -1.0 if seed > 10_001 and not is_default else 1 / (1 + is_default), 0.1

    with scripted(measures), pytest.raises(CellsFailedError, match="trial 1 of bert failed"):
        search.tune(tune=TUNE | {"trials": 2, "pick": 1})
    assert not (search.study / "tuned.toml").exists()
