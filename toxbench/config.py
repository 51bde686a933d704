"""How settings are put together; what decides: flags > --config TOML > preset > plugin."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from toxbench.errors import SettingsError, nearest
from toxbench.settings import FrozenModel, RunSettings, possible_path

Settings = TypeVar("Settings", bound=BaseModel)


def read_config(path: Path) -> dict[str, Any]:
    """Read a TOML file whose keys are the fields of `RunSettings`.

    Raises:
        SettingsError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(possible_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: not TOML: {error}") from error
    except ValueError as error:
        raise SettingsError(f"--config: {error}") from error


def run_settings(config: Mapping[str, Any], flags: Mapping[str, Any]) -> RunSettings:
    """Merge a config file and flags, flags first; tables are merged field by field.

    A training flag also wins over what the file says for one backbone alone.

    Raises:
        SettingsError: a key is unknown or a value is impossible.
    """
    settings = layered(RunSettings, _merged(config, flags))
    flagged = flags.get("train", {})
    own = {
        backbone: {name: value for name, value in table.items() if name not in flagged}
        for backbone, table in settings.backbone.items()
    }
    return settings.model_copy(update={"backbone": own})


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree of tables over another, field by field."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            value = _merged(under, value)
        merged[name] = value
    return merged


def layered(kind: type[Settings], *layers: Mapping[str, Any]) -> Settings:
    """Build settings from layers; a later layer wins over an earlier one, field by field.

    Raises:
        SettingsError: a key is unknown or a value is out of range (one line, with the fix).
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    try:
        return kind(**merged)
    except ValidationError as error:
        raise SettingsError(_one_line(error, kind)) from error


def _one_line(error: ValidationError, kind: type[BaseModel]) -> str:
    """Say the first problem that pydantic found in words that name the setting."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *tables, key = map(str, first["loc"])
        return f"unknown setting {name!r}{nearest(key, _fields(kind, tables))}"
    return f"setting {name} = {first['input']!r}: {first['msg'].lower()}"


def _fields(kind: type[BaseModel], tables: Sequence[str]) -> Iterable[str]:
    """Return the names that a table of some settings has."""
    for table in tables:
        inner = kind.model_fields[table].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ()
        kind = inner
    return kind.model_fields


class Preset(FrozenModel):
    """A named recipe: settings between the plugin's defaults and the user's own."""

    train: dict[str, Any]
    split: dict[str, Any]


PRESETS: Mapping[str, Preset] = {
    # The study this project starts from: batch 1, Adam, one rate, everything padded, no
    # validation part, no schedule, the last epoch. fp32, as PyTorch does it untold.
    "notebook": Preset(
        train={
            "epochs": 3,
            "batch_size": 1,
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
            "padding": "max_length",
            "loss": "bce",
            "selection": "last",
            "precision": "fp32",
            "eval_steps": 0,
            "patience": 0,
        },
        split={"test_size": 0.2, "validation_size": 0.0, "split_seed": 42},
    )
}


def preset(name: str | None) -> Preset:
    """Return the named recipe, or an empty one for None.

    Raises:
        SettingsError: no preset has that name.
    """
    if name is None:
        return Preset(train={}, split={})
    if name not in PRESETS:
        raise SettingsError(f"no preset is called {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]
