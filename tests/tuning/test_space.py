"""Search spaces of users and plugins: parsing, validation, sampling and grids."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler

from toxbench import Choice, Range, Space, TrainSettings, fine_tuning_space, stand_in_space
from toxbench.errors import SettingsError, ToxbenchError
from toxbench.plugin.contracts import Dimension
from toxbench.tuning.space import (
    check_space,
    default_values,
    format_dimension,
    make_grid,
    parse_dimension,
    parse_options,
    suggest_settings,
)

BASE = TrainSettings()
FOCAL = ("loss", "focal")


def check(space: Mapping[str, Any], **base: Any) -> dict[str, Dimension]:
    """Check a space; values that are not dimensions are parsed as user input."""
    dimensions = {
        name: value if isinstance(value, Range | Choice) else parse_dimension(name, value)
        for name, value in space.items()
    }
    return check_space(dimensions, BASE.model_copy(update=base), "space of bert")


def sample(space: Mapping[str, Dimension], count: int = 60, **base: Any) -> list[Any]:
    """Sample at random; return pairs of Optuna's parameters and the settings."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    trials = [study.ask() for _ in range(count)]
    samples = [suggest_settings(trial, space, BASE.model_copy(update=base)) for trial in trials]
    return list(zip([trial.params for trial in trials], samples, strict=True))


# --- parsing


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("1e-5:1e-3:log", Range(1e-5, 1e-3, log=True)),
        ("2:8", Range(2, 8)),
        ("2:8:log", Range(2, 8, log=True)),
        (" 2 : 8 ", Range(2, 8)),
        ("8,16,32", Choice((8, 16, 32))),
        ("8, 16", Choice((8, 16))),
        ("bce,weighted-bce", Choice(("bce", "weighted-bce"))),
        ("focal", Choice(("focal",))),
        ("4", Choice((4,))),
        ("1e-5", Choice((1e-5,))),
        ("0.5:3:loss=focal", Range(0.5, 3, when=FOCAL)),
        ("0.5:3:log:loss=focal", Range(0.5, 3, log=True, when=FOCAL)),
        ("0.5,1:loss = focal", Choice((0.5, 1), when=FOCAL)),
        ("0.5:3:batch_size=16", Range(0.5, 3, when=("batch_size", 16))),
        (4, Choice((4,))),
        (1e-5, Choice((1e-5,))),
        ([8, 16], Choice((8, 16))),
        (["bce", "focal"], Choice(("bce", "focal"))),
    ],
)
def test_dimension_is_parsed(text: Any, dimension: Dimension) -> None:
    parsed = parse_dimension("x", text)
    assert parsed == dimension
    if isinstance(dimension, Choice):
        assert isinstance(parsed, Choice)
        assert list(map(type, parsed.values)) == list(map(type, dimension.values))


@pytest.mark.parametrize(
    "text",
    ["1:2:3", "1:2:log:log", "1:2:lin", "a:b", ":8", "2:", ":", "1:2:", "1:2:loss=focal:log",
     {"low": 1, "high": 2}],
)  # fmt: skip
def test_invalid_dimension_is_refused_with_the_forms(text: Any) -> None:
    with pytest.raises(SettingsError, match=r"learning_rate=.*low:high:log or a,b,c") as raised:
        parse_dimension("learning_rate", text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("space", [fine_tuning_space, stand_in_space])
def test_formatted_dimension_is_parsed_back(space: Space) -> None:
    for name, dimension in space.items():
        assert parse_dimension(name, format_dimension(dimension)) == dimension


def test_last_option_of_a_name_wins() -> None:
    options = [
        "epochs=2:8",
        "learning-rate = 1e-5:1e-4",
        "epochs=3:4",
        "focal_gamma=1:2:loss=focal",
    ]
    assert parse_options(options) == {
        "epochs": "3:4", "learning_rate": " 1e-5:1e-4", "focal_gamma": "1:2:loss=focal",
    }  # fmt: skip
    assert parse_options([]) == {}


def test_toml_file_is_parsed_like_options(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(
        'learning_rate = "1e-5:1e-3:log"\nbatch_size = [8, 16]\nepochs = 4\nloss = "focal"\n'
        'focal_gamma = "0.5:3:loss=focal"\n',
        encoding="utf-8",
    )
    options = parse_options([str(file), "epochs=2:3"])
    assert {name: parse_dimension(name, value) for name, value in options.items()} == {
        "learning_rate": Range(1e-5, 1e-3, log=True),
        "batch_size": Choice((8, 16)),
        "epochs": Range(2, 3),
        "loss": Choice(("focal",)),
        "focal_gamma": Range(0.5, 3, when=FOCAL),
    }


@pytest.mark.parametrize("content", [None, b"epochs = ", b"\xff\xfe", b"epochs: 2"])
def test_invalid_toml_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "space.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"--space .*space\.toml") as raised:
        parse_options([str(file)])
    assert "\n" not in str(raised.value)


# --- validation

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"learning_rat": "1e-5:1e-4"}, "'learning_rat'; did you mean 'learning_rate'"),
    "seed": ({"seed": "0:9"}, "seed cannot be searched"),
    "unknown_condition": ({"epochs": "2:8:lose=focal"}, "'lose'; did you mean 'loss'"),
    "low_is_high": ({"epochs": "4:4"}, "epochs=4:4: low must be below high"),
    "low_above_high": ({"learning_rate": "1e-3:1e-5:log"}, "learning_rate=0.001:1e-05:log"),
    "log_from_0": ({"weight_decay": "0:0.1:log"}, "weight_decay.*above 0 on a log"),
    "log_from_below_0": ({"weight_decay": "-1:0.1:log"}, "weight_decay.*above 0 on a log"),
    "nan_low": ({"learning_rate": "nan:1e-3"}, "learning_rate"),
    "nan_high": ({"learning_rate": "1e-5:nan"}, "learning_rate"),
    "infinite": ({"learning_rate": "1e-5:inf"}, "learning_rate = inf"),
    "infinite_below": ({"weight_decay": "-inf:1"}, "weight_decay = -inf"),
    "infinite_whole": ({"epochs": "2:inf"}, "epochs = inf"),
    "nan_choice": ({"learning_rate": "1e-5,nan"}, "learning_rate = nan"),
    "below_its_limit": ({"epochs": "0:8"}, "epochs = 0"),
    "above_its_limit": ({"layer_decay": "0.5:1.5"}, r"layer_decay = 1\.5"),
    "at_an_open_limit": ({"dropout": "0:1"}, "dropout = 1"),
    "choice_outside": ({"max_length": "2,64"}, "max_length = 2"),
    "no_such_choice": ({"loss": "bce,hinge"}, "loss = 'hinge'"),
    "range_of_words": ({"loss": "1:2"}, "loss = 1"),
    "fractional_bounds": ({"epochs": "1.5:3.5"}, r"epochs = 1\.5"),
    "fractional_high": ({"epochs": "1:3.5"}, r"epochs = 3\.5"),
    "fractional_choice": ({"batch_size": "8,16.5"}, r"batch_size = 16\.5"),
    "word_for_a_number": ({"epochs": "2,many"}, "epochs = 'many'"),
    "gap": ({"batch_size": "8,,16"}, "batch_size = ''"),
    "nothing": ({"batch_size": ""}, "batch_size = ''"),
    "empty_list": ({"batch_size": []}, "batch_size has no values"),
    "nested_list": ({"batch_size": [[8], [16]]}, "batch_size"),
    "bool": ({"epochs": True}, "epochs"),
    "bools": ({"batch_size": [True, 8]}, "batch_size"),
    "bool_rate": ({"warmup": [False, 0.1]}, "warmup"),
    "mixed_types": ({"batch_size": ["8", 16]}, "batch_size"),
    "mixed_rates": ({"learning_rate": [1e-5, "1e-4"]}, "learning_rate"),
    "twice": ({"batch_size": "8,8"}, "batch_size"),
    "plugin_bool": ({"epochs": Range(True, 3)}, "epochs"),
    "plugin_words": ({"learning_rate": Range("1", "2")}, "learning_rate"),  # type: ignore[arg-type]
    "plugin_none": ({"learning_rate": Range(None, 1)}, "learning_rate"),  # type: ignore[arg-type]
    "no_space": ({}, "nothing to search"),
}  # fmt: skip


@pytest.mark.parametrize(("space", "message"), REFUSED.values(), ids=REFUSED)
def test_invalid_space_is_refused_in_one_line(space: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^space of bert: .*{message}") as raised:
        check(space)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dimension", [(2, 8), "2:8", None, {"low": 2}, RandomSampler])
def test_invalid_dimension_of_a_plugin_is_refused(dimension: Any) -> None:
    with pytest.raises(ToxbenchError, match="epochs"):
        check_space({"epochs": dimension}, BASE, "space of bert")


def test_one_bad_dimension_is_refused() -> None:
    with pytest.raises(SettingsError, match="batch_size"):
        check({"epochs": "2:8", "batch_size": "0,8"})


def test_limits_of_a_setting_are_allowed() -> None:
    space = {"layer_decay": "0.5:1", "warmup": "0:0.5", "epochs": "1:2", "pos_weight_cap": "1:2"}
    assert check(space).keys() == space.keys()


# --- conditions


def test_dimension_with_impossible_condition_is_dropped() -> None:
    space = check(
        {
            "epochs": "2:8",
            "focal_gamma": "1:2:loss=focal",  # bce is fixed
            "pos_weight_cap": "2:4:batch_size=64",  # not among the choices
            "warmup": "0:0.2:batch_size=8",
            "dropout": "0:0.2:epochs=9",  # beyond the range
            "batch_size": "8,16",
        }
    )
    assert set(space) == {"epochs", "batch_size", "warmup"}


def test_condition_may_hold_for_a_fixed_setting() -> None:
    assert set(check({"focal_gamma": "1:2:loss=focal"}, loss="focal")) == {"focal_gamma"}
    with pytest.raises(SettingsError, match="nothing to search"):
        check({"focal_gamma": "1:2:loss=focal"}, loss="bce")


def test_dependent_of_a_dropped_dimension_is_dropped() -> None:
    space = {
        "epochs": "2:8",
        "loss": "bce,focal:optimizer=adam",  # adamw is fixed, so the loss stays bce
        "focal_gamma": "1:2:loss=focal",
    }
    assert set(check(space)) == {"epochs"}
    del space["epochs"]
    with pytest.raises(SettingsError, match="nothing to search"):
        check(space)


def test_dependent_of_a_dropped_dimension_may_remain() -> None:
    space = {"loss": "bce,focal:optimizer=adam", "focal_gamma": "1:2:loss=focal"}
    assert set(check(space, loss="focal")) == {"focal_gamma"}


CHAIN: dict[str, Dimension] = {
    "optimizer": Choice(("adam", "adamw")),
    "loss": Choice(("bce", "focal"), when=("optimizer", "adam")),
    "focal_gamma": Range(1, 2, when=FOCAL),
}
CONDITIONAL: dict[str, Space] = {
    "built_in": fine_tuning_space,
    "condition_first": {"focal_gamma": Range(1, 2, when=FOCAL), "loss": Choice(("bce", "focal"))},
    "chain": CHAIN,
    "chain_backwards": dict(reversed(CHAIN.items())),
    "chain_mixed": {name: CHAIN[name] for name in ("focal_gamma", "loss", "optimizer")},
    "on_a_whole_range": {"epochs": Range(2, 4), "warmup": Range(0, 0.2, when=("epochs", 3))},
    "two_on_one": {
        "focal_gamma": Range(1, 2, when=FOCAL),
        "loss": Choice(("bce", "focal")),
        "pos_weight_cap": Range(2, 4, when=("loss", "bce")),
    },
}


@pytest.mark.parametrize("loss", ["bce", "focal"])
@pytest.mark.parametrize("space", CONDITIONAL.values(), ids=CONDITIONAL)
def test_dimension_is_sampled_if_its_condition_holds(space: Space, loss: str) -> None:
    checked = check(space, loss=loss)
    assert set(checked) == set(space)
    base = BASE.model_copy(update={"loss": loss})
    samples = sample(checked, loss=loss)
    for params, train_settings in samples:
        for name, dimension in checked.items():
            holds = dimension.when is None or (
                getattr(train_settings, dimension.when[0]) == dimension.when[1]
            )
            assert (name in params) == holds
            assert getattr(train_settings, name) == (params if holds else base.model_dump())[name]
    names = set().union(*(params for params, _ in samples))
    assert names == set(space)  # every condition held in a sample


@pytest.mark.parametrize(
    "space",
    [
        {"epochs": Range(2, 8, when=("epochs", 4))},
        {
            "loss": Choice(("bce", "focal"), when=("optimizer", "adam")),
            "optimizer": Choice(("adam", "adamw"), when=FOCAL),
        },
    ],
)
def test_circular_conditions_are_refused(space: Space) -> None:
    with pytest.raises(SettingsError, match="space of bert"):
        check(space, loss="focal", optimizer="adam")


# --- sampling


@pytest.mark.parametrize(
    "dimension",
    [Range(2, 8), Range(2.0, 8.0), Range(2, 8, log=True), Choice((2, 5)), Choice((2.0, 5.0))],
)
def test_integer_setting_gets_integers(dimension: Dimension) -> None:
    values = [s.epochs for _, s in sample(check({"epochs": dimension}))]
    assert {type(epochs) for epochs in values} == {int}
    assert len(set(values)) > 1
    assert set(values) <= set(range(2, 9))


def test_both_ends_of_integer_ranges_are_sampled() -> None:
    assert {s.epochs for _, s in sample(check({"epochs": "2:4"}))} == {2, 3, 4}


@given(
    low=st.floats(1e-12, 1.0),
    factor=st.floats(1.001, 1e6),
    log=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=50)
def test_sampled_rate_is_inside_its_range(low: float, factor: float, log: bool, seed: int) -> None:
    space = check({"learning_rate": Range(low, low * factor, log=log)})
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    assert low <= suggest_settings(study.ask(), space, BASE).learning_rate <= low * factor


def test_log_ranges_are_sampled_logarithmically() -> None:
    rates = [s.learning_rate for _, s in sample(check({"learning_rate": "1e-5:1e-1:log"}), 200)]
    assert 60 < sum(rate < 1e-3 for rate in rates) < 140


def test_other_settings_are_unchanged() -> None:
    base = {"batch_size": 7, "dropout": 0.3}
    for _, train_settings in sample(check({"epochs": "2:8"}), 5, **base):
        expected = BASE.model_copy(update=base | {"epochs": train_settings.epochs})
        assert train_settings == expected


@pytest.mark.parametrize(
    ("name", "dimension", "distribution"),
    [
        ("epochs", Range(2, 8), IntDistribution(2, 8)),
        ("epochs", Range(2.0, 8.0, log=True), IntDistribution(2, 8, log=True)),
        ("learning_rate", Range(1e-5, 1e-3, log=True), FloatDistribution(1e-5, 1e-3, log=True)),
        ("warmup", Range(0, 0.5), FloatDistribution(0, 0.5)),
        ("loss", Choice(("bce", "focal")), CategoricalDistribution(("bce", "focal"))),
    ],
)
def test_dimension_has_its_optuna_distribution(
    name: str, dimension: Dimension, distribution: object
) -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    trial = study.ask()
    suggest_settings(trial, {name: dimension}, BASE)
    assert trial.distributions == {name: distribution}


# --- defaults


def test_default_values_are_inside_their_dimensions() -> None:
    space = check(
        {
            "learning_rate": "1e-4:1e-3",  # 3e-5 is below
            "head_learning_rate": "1e-4:1e-3",
            "epochs": "4:8",  # equal to low
            "batch_size": "8,32",  # without 16
            "loss": "bce,focal",
            "focal_gamma": "1:3:loss=focal",  # not active
            "pos_weight_cap": "2:20:loss=bce",
            "dropout": "0:0.3",  # unset
        }
    )
    assert default_values(space, BASE) == {
        "head_learning_rate": 3e-4, "epochs": 4, "loss": "bce", "pos_weight_cap": 10.0,
    }  # fmt: skip
    focal = BASE.model_copy(update={"loss": "focal", "dropout": 0.1})
    assert default_values(space, focal).keys() >= {"focal_gamma", "dropout"}
    assert "pos_weight_cap" not in default_values(space, focal)


# --- grids


@given(low=st.floats(1e-9, 0.9), width=st.floats(1e-4, 1e9), log=st.booleans())
@example(low=0.084, width=0.137, log=False)  # rounding would end above the range
@example(low=0.004, width=0.005, log=True)
@settings(deadline=None)
def test_grid_points_are_distinct_and_in_range(low: float, width: float, log: bool) -> None:
    high = round(low + width, 9)
    space: Space = {"learning_rate": Range(low, high, log=log)}
    points = [point["learning_rate"] for point in make_grid(space, BASE)]
    assert all(low <= point <= high for point in points)
    assert len(set(points)) == len(points) == 3
    assert points == sorted(points)
    assert (points[0], points[-1]) == (pytest.approx(low), pytest.approx(high))
    middle = (low * high) ** 0.5 if log else (low + high) / 2
    assert points[1] == pytest.approx(middle)


@given(low=st.integers(1, 50), width=st.integers(1, 50), log=st.booleans())
@settings(deadline=None)
def test_grid_points_of_integer_settings_are_integers(low: int, width: int, log: bool) -> None:
    space: Space = {"epochs": Range(low, low + width, log=log)}
    points = [point["epochs"] for point in make_grid(space, BASE)]
    assert {type(point) for point in points} == {int}
    assert (points[0], points[-1]) == (low, low + width)
    assert len(set(points)) == len(points) == min(3, width + 1)
    assert points == sorted(points)


def test_grid_has_every_combination_once() -> None:
    space = {"loss": Choice(("bce", "focal")), "batch_size": Choice((8, 16))}
    assert make_grid(space, BASE) == [
        {"loss": loss, "batch_size": size} for loss in ("bce", "focal") for size in (8, 16)
    ]


def test_large_grid_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"more than 10000 points"):
        make_grid(check(fine_tuning_space), BASE)


def test_optuna_can_sample_grid_points() -> None:
    for name, dimension in check(fine_tuning_space).items():
        space = {name: dataclasses.replace(dimension, when=None)}
        trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
        suggest_settings(trial, space, BASE)
        for point in make_grid(space, BASE):
            distribution = trial.distributions[name]
            assert distribution._contains(distribution.to_internal_repr(point[name]))
