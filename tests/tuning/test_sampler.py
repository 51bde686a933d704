"""The sampler: the default settings first, and the same trials after a restart."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner
from optuna.study import Study
from optuna.trial import TrialState

from toxbench import Choice, Range, Space, TrainSettings, fine_tuning_space
from toxbench.settings import TuneSettings
from toxbench.tuning.space import check_space
from toxbench.tuning.spec import PRUNING_STEPS, Sampler, make_pruner, pruning_step

BASE = TrainSettings()
RATE: Space = {"learning_rate": Range(1e-5, 1e-3, log=True)}
MIXED: Space = {
    **RATE,
    "epochs": Range(2, 8),
    "loss": Choice(("bce", "focal")),
    "focal_gamma": Range(0.5, 3.0, when=("loss", "focal")),
}
# The default settings are not a point of this grid.
GRID: Space = {"epochs": Choice((2, 3, 5)), "batch_size": Choice((8, 32))}
SAMPLERS = ("random", "tpe", "grid")
Params = dict[str, Any]


def new_study() -> Study:
    return optuna.create_study(direction="maximize")


def search(
    space: Space,
    count: int,
    study: Study | None = None,
    *,
    lost: Sequence[int] = (),
    restart: bool = True,
    base: TrainSettings = BASE,
    **tune: Any,
) -> list[tuple[bool, Params]]:
    """Sample trials, each from a new sampler as after a restart, and score them.

    Args:
        space: search space.
        count: number of trials.
        study: to resume; None: a new study.
        lost: numbers of trials that fail without a record, as if their process died.
        restart: make a new sampler for each trial.
        base: the default settings.
        tune: settings of the search.

    Returns:
        for each trial that is not lost, whether it has the default settings, and its parameters.
    """
    study = study or new_study()
    checked = check_space(space, base, "space")
    settings = TuneSettings(**({"trials": 20, "sampler": "random"} | tune))
    sampler = Sampler(settings, checked, base)
    trials: list[tuple[bool, Params]] = []
    for _ in range(count):
        if restart:
            sampler = Sampler(settings, checked, base)
        study.sampler = sampler
        trial = study.ask()
        slot = free_slot(study)
        trial_settings = sampler.sample_settings(trial, slot)
        if trial.number in lost:
            study.tell(trial, state=TrialState.FAIL)
            continue
        trials.append((trial_settings == base, dict(trial.params)))
        trial.set_user_attr("slot", slot)
        distance = abs(trial_settings.learning_rate - 1e-4)
        study.tell(trial, -distance * 1e3 - trial_settings.epochs / 100)
    return trials


def free_slot(study: Study) -> int:
    """Return the lowest slot without a trial; lost trials have none."""
    used_slots = {trial.user_attrs.get("slot") for trial in study.get_trials(deepcopy=False)}
    return next(slot for slot in itertools.count() if slot not in used_slots)


def params_of(trials: Sequence[tuple[bool, Params]]) -> list[Params]:
    return [params for _, params in trials]


def to_json(params: Params) -> str:
    return json.dumps(params, sort_keys=True)


# --- default settings


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_the_first_trial_has_the_defaults(sampler: str) -> None:
    first, *rest = search(MIXED, 6, sampler=sampler)
    assert first == (True, {"learning_rate": 3e-5, "epochs": 4, "loss": "bce"})
    assert not any(is_default for is_default, _ in rest)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_defaults_outside_the_space_are_not_parameters(sampler: str) -> None:
    first, *rest = search({"learning_rate": Range(1e-4, 1e-3), **GRID}, 3, sampler=sampler)
    assert first == (True, {})
    assert all(params.keys() == {"learning_rate", "epochs", "batch_size"} for _, params in rest)


def test_lost_default_trial_is_repeated() -> None:
    trials = search(MIXED, 5, lost=(0, 1))
    assert [is_default for is_default, _ in trials] == [True, False, False]
    assert trials[0][1] == {"learning_rate": 3e-5, "epochs": 4, "loss": "bce"}


def test_lost_later_trials_do_not_repeat_defaults() -> None:
    trials = search(MIXED, 5, lost=(2,))
    assert [is_default for is_default, _ in trials] == [True, False, False, False]


# --- restarts


@pytest.mark.parametrize(
    ("sampler", "space"),
    [("random", MIXED), ("tpe", MIXED), ("grid", MIXED), ("tpe", fine_tuning_space)],
)
def test_restarts_do_not_change_the_trials(sampler: str, space: Space) -> None:
    uninterrupted = search(space, 14, sampler=sampler, restart=False)
    assert search(space, 14, sampler=sampler, restart=True) == uninterrupted


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_restarts_repeat_no_trial(sampler: str) -> None:
    trials = params_of(search(RATE, 14, sampler=sampler))
    assert len({params["learning_rate"] for params in trials}) == 14


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_random_trials_depend_on_their_number(sampler: str) -> None:
    trials = search(MIXED, 6, sampler=sampler)
    remaining = search(MIXED, 6, sampler=sampler, lost=(2, 3))
    assert remaining == [trials[0], trials[1], trials[4], trials[5]]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_depend_on_the_seed(sampler: str) -> None:
    first, repeated, different = (
        params_of(search(MIXED, 9, sampler=sampler, tune_seed=seed)) for seed in (0, 0, 1)
    )
    assert first == repeated
    assert first[0] == different[0]  # the defaults
    assert first != different
    if sampler != "grid":  # a grid has the same points in another order
        assert all(a != b for a, b in zip(first[1:], different[1:], strict=True))


def test_neighbouring_seeds_share_no_trial() -> None:
    searches = [params_of(search(RATE, 8, tune_seed=seed))[1:] for seed in range(4)]
    assert len({params["learning_rate"] for trials in searches for params in trials}) == 4 * 7


# --- TPE


def test_tpe_learns_from_scores() -> None:
    trials = params_of(search(RATE, 30, sampler="tpe", trials=30))
    # 0.3 of the logarithmic range, around the best rate.
    near = [5e-5 < params["learning_rate"] < 2e-4 for params in trials]
    assert sum(near[-10:]) > sum(near[1:11])


def test_first_third_of_tpe_trials_is_random() -> None:
    tpe, uniform = (
        params_of(search(RATE, 12, sampler=sampler, trials=18)) for sampler in ("tpe", "random")
    )
    assert tpe[:6] == uniform[:6]
    assert all(a != b for a, b in zip(tpe[6:], uniform[6:], strict=True))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_conditional_parameters_need_their_condition(sampler: str) -> None:
    trials = params_of(search(MIXED, 30, sampler=sampler))
    assert {params["loss"] for params in trials} == {"bce", "focal"}
    assert all(("focal_gamma" in params) == (params["loss"] == "focal") for params in trials)
    assert all(type(params["epochs"]) is int for params in trials)


# --- grids


def test_grid_search_has_every_point_once() -> None:
    trials = params_of(search(GRID, 7, sampler="grid"))[1:]
    assert {(params["epochs"], params["batch_size"]) for params in trials} == {
        (epochs, size) for epochs in (2, 3, 5) for size in (8, 32)
    }


def test_lost_grid_point_is_repeated() -> None:
    trials = params_of(search(GRID, 8, sampler="grid", lost=(3,)))[1:]
    assert len({to_json(params) for params in trials}) == 6


def test_conditional_grid_has_every_configuration_once() -> None:
    space: Space = {
        "loss": Choice(("weighted-bce", "focal")),
        "focal_gamma": Range(0.5, 3.0, when=("loss", "focal")),
    }
    trials = params_of(search(space, 5, sampler="grid"))[1:]
    assert {to_json(params) for params in trials} == {
        to_json({"loss": "weighted-bce"}),
        *(to_json({"loss": "focal", "focal_gamma": gamma}) for gamma in (0.5, 1.75, 3.0)),
    }


def test_grid_search_in_a_database_resumes() -> None:
    storage = optuna.storages.RDBStorage("sqlite://")
    study = optuna.create_study(storage=storage, direction="maximize")
    trials = params_of(
        search(GRID, 4, study, sampler="grid") + search(GRID, 3, study, sampler="grid")
    )
    assert len({to_json(params) for params in trials[1:]}) == 6
    storage.remove_session()
    storage.engine.dispose()


# --- pruners


@pytest.mark.parametrize(
    ("name", "pruner_class"),
    [("median", MedianPruner), ("hyperband", HyperbandPruner), ("none", NopPruner)],
)
def test_pruner_has_the_requested_type(name: str, pruner_class: type) -> None:
    assert isinstance(make_pruner(TuneSettings(pruner=name)), pruner_class)  # type: ignore[arg-type]


def find_pruning_step(name: str, epochs: int = PRUNING_STEPS) -> int | None:
    """Return the step at which a trial far below four earlier trials is pruned, or None."""
    study = optuna.create_study(
        direction="maximize", pruner=make_pruner(TuneSettings(pruner=name))  # type: ignore[arg-type]
    )  # fmt: skip
    for _ in range(4):
        trial = study.ask()
        for epoch in range(1, epochs + 1):
            trial.report(0.8 + epoch / 100, epoch)
        study.tell(trial, 0.9)
    trial = study.ask()
    for epoch in range(1, epochs + 1):
        trial.report(0.1, epoch)
        if trial.should_prune():
            return epoch
    return None


def test_median_prunes_a_bad_trial_early() -> None:
    assert find_pruning_step("median") == 1


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(2, [2, 4]), (4, [1, 2, 3, 4]), (6, [0, 1, 2, 2, 3, 4]), (1, [4]), (5, [0, 1, 2, 3, 4])],
)
def test_steps_are_quarters_of_a_training(epochs: int, steps: list[int]) -> None:
    assert [pruning_step(epoch, epochs) for epoch in range(1, epochs + 1)] == steps


def test_pruner_none_prunes_no_trial() -> None:
    assert find_pruning_step("none") is None


def test_median_does_not_prune_a_better_trial() -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(TuneSettings()))
    for value in (0.2, 0.3, 0.4):
        trial = study.ask()
        for epoch in range(1, 9):
            trial.report(value, epoch)
            assert not trial.should_prune()
        study.tell(trial, value)
