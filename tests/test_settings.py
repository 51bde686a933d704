"""Settings: precedence of layers, invalid values, and the preset of the original study."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from toxbench.config import PRESETS, build_run_settings, build_settings, get_preset, read_config
from toxbench.errors import SettingsError
from toxbench.settings import ColumnSettings, RunSettings, SplitSettings, TrainSettings, digest


def test_later_layers_override_fields() -> None:
    settings = build_settings(
        TrainSettings,
        {"epochs": 1, "batch_size": 1, "max_length": 10},
        {"epochs": 2, "batch_size": 2},
        {},
        {"epochs": 3},
    )
    assert (settings.epochs, settings.batch_size, settings.max_length) == (3, 2, 10)
    assert settings.model_fields_set == {"epochs", "batch_size", "max_length"}


def test_settings_without_layers_are_the_defaults() -> None:
    assert build_settings(TrainSettings) == TrainSettings()


@pytest.mark.parametrize(
    ("kind", "key", "suggestion"),
    [
        (TrainSettings, "epoch", "epochs"),
        (TrainSettings, "learning-rate", "learning_rate"),
        (SplitSettings, "testsize", "test_size"),
        (ColumnSettings, "label", "labels"),
        (RunSettings, "back_bones", "backbones"),
    ],
)
def test_unknown_key_is_refused_with_a_suggestion(kind: Any, key: str, suggestion: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_settings(kind, {key: 1})
    assert str(caught.value) == f"unknown setting {key!r}; did you mean {suggestion!r}?"
    assert caught.value.exit_code == 2


def test_unique_unknown_key_has_no_suggestion() -> None:
    with pytest.raises(SettingsError, match=r"^unknown setting 'zzz'$"):
        build_settings(TrainSettings, {"zzz": 1})


IMPOSSIBLE: list[tuple[Any, str, object]] = [
    (TrainSettings, "epochs", 0),
    (TrainSettings, "epochs", 1.5),
    (TrainSettings, "epochs", "many"),
    (TrainSettings, "batch_size", -1),
    (TrainSettings, "accumulation", 0),
    (TrainSettings, "optimizer", "sgd"),
    (TrainSettings, "learning_rate", 0),
    (TrainSettings, "learning_rate", math.nan),
    (TrainSettings, "learning_rate", math.inf),
    (TrainSettings, "head_learning_rate", -1e-5),
    (TrainSettings, "weight_decay", -0.1),
    (TrainSettings, "warmup", 1.0),
    (TrainSettings, "clip_norm", math.nan),
    (TrainSettings, "max_length", 2),
    (TrainSettings, "loss", "hinge"),
    (TrainSettings, "pos_weight_cap", 0.5),
    (TrainSettings, "focal_gamma", -1),
    (TrainSettings, "precision", "fp16"),
    (SplitSettings, "test_size", 0),
    (SplitSettings, "test_size", 1),
    (SplitSettings, "test_size", math.nan),
    (SplitSettings, "validation_size", 1),
    (SplitSettings, "validation_size", -0.1),
    (SplitSettings, "split_seed", -1),
    (SplitSettings, "split_seed", 2**32),
    (RunSettings, "seeds", 0),
    (RunSettings, "device", "tpu"),
]


@pytest.mark.parametrize(("kind", "name", "value"), IMPOSSIBLE)
def test_impossible_value_is_refused_in_one_line(kind: Any, name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"^setting {name} = ") as caught:
        build_settings(kind, {name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TrainSettings, "weight_decay", 0),
        (TrainSettings, "warmup", 0),
        (TrainSettings, "max_length", 3),
        (SplitSettings, "validation_size", 0),
        (SplitSettings, "split_seed", 2**32 - 1),
    ],
)
def test_boundary_value_is_accepted(kind: Any, name: str, value: float) -> None:
    assert getattr(build_settings(kind, {name: value}), name) == value


def test_settings_are_immutable() -> None:
    settings = TrainSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.epochs = 5  # type: ignore[misc]


def test_notebook_preset_matches_the_study() -> None:
    recipe = get_preset("notebook")
    plugin_defaults = {"epochs": 9, "loss": "focal", "clip_norm": 5}
    settings = build_settings(TrainSettings, plugin_defaults, recipe.train)
    assert settings.model_dump(exclude={"pos_weight_cap", "focal_gamma"}) == {
        "epochs": 3,
        "batch_size": 1,
        "adaptation": "full",
        "head_init": "random",
        "accumulation": 1,
        "optimizer": "adam",
        "learning_rate": 1e-5,
        "head_learning_rate": 1e-5,
        "layer_decay": 1.0,
        "weight_decay": 0.0,
        "dropout": None,
        "schedule": "constant",
        "warmup": 0.0,
        "clip_norm": 0.0,
        "max_length": 128,
        "long_text": "head",
        "padding": "max_length",
        "loss": "bce",
        "precision": "fp32",
        "eval_steps": 0,
        "patience": 0,
    }
    assert build_settings(SplitSettings, recipe.split).model_dump(exclude_unset=True) == {
        "test_size": 0.2,
        "validation_size": 0.0,
        "split_seed": 42,
    }


@pytest.mark.parametrize("name", PRESETS)
def test_presets_override_all_plugin_defaults(name: str) -> None:
    settings = build_settings(TrainSettings, get_preset(name).train)
    parameters_of_other_losses = {"pos_weight_cap", "focal_gamma"}
    assert settings.model_fields_set | parameters_of_other_losses == set(TrainSettings.model_fields)


def test_unknown_preset_is_refused() -> None:
    assert (get_preset(None).train, get_preset(None).split) == ({}, {})
    with pytest.raises(SettingsError, match="'notebok'; did you mean 'notebook'"):
        get_preset("notebok")


def test_flags_override_the_config_file() -> None:
    config = {"seeds": 3, "device": "cpu", "train": {"epochs": 2, "batch_size": 8}}
    flags = {"seeds": 5, "train": {"epochs": 1}, "split": {"test_size": 0.3}}
    settings = build_run_settings(config, flags)
    assert (settings.seeds, settings.device) == (5, "cpu")
    assert settings.train == {"epochs": 1, "batch_size": 8}
    assert settings.split == {"test_size": 0.3}
    assert config["train"] == {"epochs": 2, "batch_size": 8}


def test_columns_of_config_and_flags_are_merged() -> None:
    settings = build_run_settings(
        {"columns": {"text_column": "a", "id_column": "b"}}, {"columns": {"text_column": "c"}}
    )
    assert settings.columns == ColumnSettings(text_column="c", id_column="b")


def test_unknown_run_setting_is_refused() -> None:
    with pytest.raises(SettingsError, match="'sedes'; did you mean 'seeds'"):
        build_run_settings({"sedes": 3}, {})


def test_config_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'backbones = ["bert"]\n[train]\nepochs = 2\n[backbone.bert]\nloss = "focal"\n',
        encoding="utf-8",
    )
    settings = build_run_settings(read_config(path), {})
    assert settings.backbones == ("bert",)
    assert settings.train == {"epochs": 2}
    assert settings.backbone == {"bert": {"loss": "focal"}}


@pytest.mark.parametrize("content", [b"seeds = ", b"seeds: 3", b"a = 1\na = 2", b"\xff\xfe"])
def test_config_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"run\.toml: not TOML"):
        read_config(path)


def test_unreadable_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="directory"):
        read_config(tmp_path)


def test_digest_matches_sha256sum() -> None:
    # printf '{"a":[1,2.5,null,"\\u00e9"],"b":true}' | sha256sum
    assert digest({"b": True, "a": [1, 2.5, None, "é"]}) == "f6026612768d"


def test_digest_ignores_the_order_of_keys() -> None:
    settings = TrainSettings().model_dump(mode="json")
    assert digest(settings) == digest(dict(reversed(settings.items())))
    assert digest(settings) == digest(json.loads(json.dumps(settings)))


def test_different_values_have_different_digests() -> None:
    values: list[object] = [
        None, "", "a", "b", 1, "1", 1.5, [], {}, [1], [1, 2], [2, 1], {"a": 1}, {"a": 2},
        TrainSettings().model_dump(), TrainSettings(learning_rate=3.1e-5).model_dump(),
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)


def test_flag_replaces_a_table_in_the_config() -> None:
    assert build_run_settings({"preset": {"x": 1}}, {"preset": "notebook"}).preset == "notebook"


def test_table_in_place_of_text_is_refused() -> None:
    with pytest.raises(SettingsError, match="preset"):
        build_run_settings({"preset": {"x": 1}}, {})


def test_training_flag_overrides_a_backbone_table() -> None:
    file = {"backbone": {"bert": {"epochs": 3, "batch_size": 5}}, "train": {"epochs": 4}}
    merged = build_run_settings(file, {"train": {"epochs": 1}})
    assert merged.train == {"epochs": 1}
    assert merged.backbone == {"bert": {"batch_size": 5}}


def test_training_setting_overrides_backbone_tables_of_earlier_layers() -> None:
    first, second = {"backbone": {"bert": {"epochs": 3, "batch_size": 5}}}, {"train": {"epochs": 2}}
    third = {"backbone": {"bert": {"loss": "focal"}}, "train": {"dropout": 0.2}}
    merged = build_run_settings(first, second, third, {})
    assert merged.backbone == {"bert": {"batch_size": 5, "loss": "focal"}}
    assert merged.train == {"epochs": 2, "dropout": 0.2}
