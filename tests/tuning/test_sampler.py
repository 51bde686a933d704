"""Who draws the trials: the defaults first, and after a restart what would have come anyway."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner
from optuna.study import Study
from optuna.trial import TrialState

from toxbench import Choice, Range, Space, TrainSettings, fine_tuning_space
from toxbench.settings import TuneSettings
from toxbench.tuning.sampler import PRUNING_STEPS, Sampler, make_pruner, pruning_step
from toxbench.tuning.space import checked_space

BASE = TrainSettings()
RATE: Space = {"learning_rate": Range(1e-5, 1e-3, log=True)}
MIXED: Space = {
    **RATE,
    "epochs": Range(2, 8),
    "loss": Choice(("bce", "focal")),
    "focal_gamma": Range(0.5, 3.0, when=("loss", "focal")),
}
GRID: Space = {"epochs": Choice((2, 3, 5)), "batch_size": Choice((8, 32))}  # without the defaults
SAMPLERS = ("random", "tpe", "grid")
SampledTrial = dict[str, Any]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep Optuna's log lines, one a trial, out of the output."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def new_study() -> Study:
    return optuna.create_study(direction="maximize")


def search(
    space: Space,
    count: int,
    study: Study | None = None,
    *,
    lose: Sequence[int] = (),
    restart: bool = True,
    base: TrainSettings = BASE,
    **tune: Any,
) -> list[tuple[bool, SampledTrial]]:
    """Draw trials, each from a new sampler as after a restart, and score them.

    Args:
        space: what to draw.
        count: trials.
        study: to go on with.
        lose: numbers of trials that fail without a record, as when their process dies.
        restart: make a new sampler for each trial.
        base: the default settings.
        tune: settings of the search.

    Returns:
        of each trial that was not lost, whether it took the defaults, and its parameters.
    """
    study = study or new_study()
    checked = checked_space(space, base, "space")
    settings = TuneSettings(**({"trials": 20, "sampler": "random"} | tune))
    sampler = Sampler(settings, checked, base)
    found: list[tuple[bool, SampledTrial]] = []
    for _ in range(count):
        if restart:
            sampler = Sampler(settings, checked, base)
        study.sampler = sampler
        trial = study.ask()
        slot = free_slot(study)
        drawn = sampler.settings_for(trial, slot)
        if trial.number in lose:
            study.tell(trial, state=TrialState.FAIL)
            continue
        found.append((drawn == base, dict(trial.params)))
        trial.set_user_attr("slot", slot)
        study.tell(trial, -abs(drawn.learning_rate - 1e-4) * 1e3 - drawn.epochs / 100)
    return found


def free_slot(study: Study) -> int:
    """Return the lowest slot that no trial has which was not lost."""
    taken = {trial.user_attrs.get("slot") for trial in study.get_trials(deepcopy=False)}
    return next(slot for slot in itertools.count() if slot not in taken)


def params(found: Sequence[tuple[bool, SampledTrial]]) -> list[SampledTrial]:
    return [drawn for _, drawn in found]


def as_text(drawn: SampledTrial) -> str:
    return json.dumps(drawn, sort_keys=True)


# --- the defaults


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_first_trial_takes_the_defaults_and_no_other_one_does(sampler: str) -> None:
    first, *rest = search(MIXED, 6, sampler=sampler)
    assert first == (True, {"learning_rate": 3e-5, "epochs": 4, "loss": "bce"})
    assert not any(default for default, _ in rest)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_defaults_outside_the_space_are_no_parameters_of_the_first_trial(sampler: str) -> None:
    first, *rest = search({"learning_rate": Range(1e-4, 1e-3), **GRID}, 3, sampler=sampler)
    assert first == (True, {})
    assert all(drawn.keys() == {"learning_rate", "epochs", "batch_size"} for _, drawn in rest)


def test_the_defaults_are_taken_again_where_their_trial_was_lost() -> None:
    found = search(MIXED, 5, lose=(0, 1))
    assert [default for default, _ in found] == [True, False, False]
    assert found[0][1] == {"learning_rate": 3e-5, "epochs": 4, "loss": "bce"}


def test_a_lost_trial_in_the_middle_does_not_bring_the_defaults_back() -> None:
    assert [default for default, _ in search(MIXED, 5, lose=(2,))] == [True, False, False, False]


# --- restarts


@pytest.mark.parametrize(
    ("sampler", "space"),
    [("random", MIXED), ("tpe", MIXED), ("grid", MIXED), ("tpe", fine_tuning_space)],
)
def test_restarts_draw_what_an_undisturbed_run_draws(sampler: str, space: Space) -> None:
    undisturbed = search(space, 14, sampler=sampler, restart=False)
    assert search(space, 14, sampler=sampler, restart=True) == undisturbed


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_no_draw_comes_twice_however_often_the_search_restarts(sampler: str) -> None:
    drawn = params(search(RATE, 14, sampler=sampler))
    assert len({d["learning_rate"] for d in drawn}) == 14


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_start_up_draw_belongs_to_the_number_of_its_trial(sampler: str) -> None:
    whole = search(MIXED, 6, sampler=sampler)
    lost = search(MIXED, 6, sampler=sampler, lose=(2, 3))
    assert lost == [whole[0], whole[1], whole[4], whole[5]]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_seed_draws_otherwise_and_the_same_one_alike(sampler: str) -> None:
    one, again, other = (
        params(search(MIXED, 9, sampler=sampler, tune_seed=seed)) for seed in (0, 0, 1)
    )
    assert one == again
    assert one[0] == other[0]  # the defaults
    assert one != other
    if sampler != "grid":  # a grid's points are the same, in another order
        assert all(mine != theirs for mine, theirs in zip(one[1:], other[1:], strict=True))


def test_neighbouring_seeds_do_not_share_their_draws() -> None:
    drawn = [params(search(RATE, 8, tune_seed=seed))[1:] for seed in range(4)]
    assert len({d["learning_rate"] for run in drawn for d in run}) == 4 * 7


# --- TPE


def test_tpe_learns_from_what_it_was_told() -> None:
    drawn = [d["learning_rate"] for d in params(search(RATE, 30, sampler="tpe", trials=30))]
    near = [5e-5 < rate < 2e-4 for rate in drawn]  # 0.3 of the range, around the best
    assert sum(near[-10:]) > sum(near[1:11])


def test_tpe_draws_a_third_of_the_trials_at_random_and_the_rest_itself() -> None:
    tpe, at_random = (
        params(search(RATE, 12, sampler=sampler, trials=18)) for sampler in ("tpe", "random")
    )
    assert tpe[:6] == at_random[:6]
    assert all(mine != theirs for mine, theirs in zip(tpe[6:], at_random[6:], strict=True))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_conditional_parameters_are_drawn_with_their_condition_only(sampler: str) -> None:
    drawn = params(search(MIXED, 30, sampler=sampler))
    assert {d["loss"] for d in drawn} == {"bce", "focal"}
    assert all(("focal_gamma" in d) == (d["loss"] == "focal") for d in drawn)
    assert all(type(d["epochs"]) is int for d in drawn)


# --- grids


def test_a_grid_is_walked_through_without_a_repetition() -> None:
    drawn = params(search(GRID, 7, sampler="grid"))[1:]
    assert {(d["epochs"], d["batch_size"]) for d in drawn} == {
        (epochs, size) for epochs in (2, 3, 5) for size in (8, 32)
    }


def test_a_lost_trials_grid_point_is_drawn_again() -> None:
    drawn = params(search(GRID, 8, sampler="grid", lose=(3,)))[1:]
    assert len({as_text(d) for d in drawn}) == 6


def test_a_conditional_grid_has_every_configuration_once() -> None:
    space: Space = {
        "loss": Choice(("weighted-bce", "focal")),
        "focal_gamma": Range(0.5, 3.0, when=("loss", "focal")),
    }
    drawn = params(search(space, 5, sampler="grid"))[1:]
    assert {as_text(d) for d in drawn} == {
        as_text({"loss": "weighted-bce"}),
        *(as_text({"loss": "focal", "focal_gamma": gamma}) for gamma in (0.5, 1.75, 3.0)),
    }


def test_a_grid_in_a_database_goes_on_where_it_was() -> None:
    storage = optuna.storages.RDBStorage("sqlite://")
    study = optuna.create_study(storage=storage, direction="maximize")
    drawn = params(search(GRID, 4, study, sampler="grid") + search(GRID, 3, study, sampler="grid"))
    assert len({as_text(d) for d in drawn[1:]}) == 6
    storage.remove_session()
    storage.engine.dispose()


# --- pruners


@pytest.mark.parametrize(
    ("name", "kind"),
    [("median", MedianPruner), ("hyperband", HyperbandPruner), ("none", NopPruner)],
)
def test_the_pruner_is_the_one_that_was_asked_for(name: str, kind: type) -> None:
    assert isinstance(make_pruner(TuneSettings(pruner=name)), kind)  # type: ignore[arg-type]


def pruned_after(name: str, epochs: int = PRUNING_STEPS) -> int | None:
    """Return the step after which a trial far below four others is ended."""
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


def test_median_ends_a_hopeless_trial_after_a_quarter() -> None:
    assert pruned_after("median") == 1


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(2, [2, 4]), (4, [1, 2, 3, 4]), (6, [0, 1, 2, 2, 3, 4]), (1, [4]), (5, [0, 1, 2, 3, 4])],
)
def test_steps_are_quarters_of_a_training(epochs: int, steps: list[int]) -> None:
    assert [pruning_step(epoch, epochs) for epoch in range(1, epochs + 1)] == steps


def test_no_pruner_ends_nothing() -> None:
    assert pruned_after("none") is None


def test_median_leaves_a_trial_alone_that_is_above_the_others() -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(TuneSettings()))
    for value in (0.2, 0.3, 0.4):
        trial = study.ask()
        for epoch in range(1, 9):
            trial.report(value, epoch)
            assert not trial.should_prune()
        study.tell(trial, value)
