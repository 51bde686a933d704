"""Merging of settings, in order of precedence: options, --config TOML, preset, plugin."""

import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from toxbench.errors import SettingsError, did_you_mean
from toxbench.settings import SPLIT_FILE_FIELDS, Preset, RunSettings, validate_path
from toxbench.util.table_source import source_name
from toxbench.util.text import join_names, safe_keys, safe_quote, safe_value

Settings = TypeVar("Settings", bound=BaseModel)

PRESETS: Mapping[str, Preset] = {
    # The original study: batch 1, Adam, one learning rate, everything padded, no validation part,
    # no schedule, the last epoch, and fp32, which is PyTorch's default.
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
            "adaptation": "full",
            "head_init": "random",
            "loss": "bce",
            "selection": "last",
            "precision": "fp32",
            "eval_steps": 0,
            "patience": 0,
        },
        split={"test_size": 0.2, "validation_size": 0.0, "split_seed": 42},
    )
}

_OPTION_TABLES = ("columns", "train", "split")  # tables whose fields are options
_PLAIN_OPTIONS = ("preset", "seeds", "device", "workers", "cpus_per_cell", "cell_timeout", "tuned")
_LIST_OPTIONS = ("backbones", "baselines", "adaptation", "plugins")
_OMITTED = {"storage", "space"}  # of one machine only; written by `command_line` itself


def get_preset(name: str | None) -> Preset:
    """Return the preset of that name, or an empty one for None.

    Raises:
        SettingsError: no preset has that name.
    """
    if name is None:
        return Preset(train={}, split={})
    if name not in PRESETS:
        raise SettingsError(f"no preset is called {safe_quote(name)}{did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def read_config(path: Path) -> dict[str, Any]:
    """Read a TOML file whose keys are the fields of `RunSettings`.

    Raises:
        SettingsError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(validate_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: not TOML: {error}") from error
    except ValueError as error:
        raise SettingsError(f"--config: {error}") from error


def build_run_settings(config: Mapping[str, Any], flags: Mapping[str, Any]) -> RunSettings:
    """Merge a config file with command-line flags, which take precedence.

    Tables are merged field by field. A training flag also overrides the config's table of a
    single backbone.

    Raises:
        SettingsError: a key is unknown or a value is impossible.
    """
    settings = build_settings(RunSettings, _merge(config, flags))
    training_flags = flags.get("train", {})
    backbone_tables = {
        backbone: {name: value for name, value in table.items() if name not in training_flags}
        for backbone, table in settings.backbone.items()
    }
    return settings.model_copy(update={"backbone": backbone_tables})


def build_settings(kind: type[Settings], *layers: Mapping[str, Any]) -> Settings:
    """Build settings from layers of fields; a later layer overrides an earlier one.

    Raises:
        SettingsError: a key is unknown or a value is out of range (one line, with the fix).
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    try:
        return kind(**merged)
    except ValidationError as error:
        raise SettingsError(_first_problem(error, kind)) from None  # it holds all keys


def command_line(verb: str, settings: RunSettings, program: str = "toxbench") -> str:
    """Return the command line that repeats a run or a search, without defaults and folders.

    Settings of a single backbone have no option: they follow as the lines of a ``--config`` file.
    """
    values = {"backbones": settings.backbones, **settings.model_dump(exclude_defaults=True)}
    words = [*program.split(), verb]
    if settings.data is not None:
        words += ["--data", source_name(settings.data)]
    for name in _LIST_OPTIONS:
        if name in values:
            words += [option_name(name), join_names(values[name]) or "none"]
    for source in values.get("weights", ()):
        words += ["--weights", _without_folder(source)]
    for table in (*([] if verb == "run" else ["tune"]), *_OPTION_TABLES):
        words += _option_texts(values.get(table, {}))
    words += _option_texts({name: values[name] for name in _PLAIN_OPTIONS if name in values})
    for name, dimension in settings.tune.get("space", {}).items() if verb == "tune" else ():
        words += ["--space", f"{name}={_value_text(dimension)}"]
    lines = list(_config_lines(settings.backbone))
    return shlex.join([*words, *(["--config", "backbones.toml"] if lines else [])]) + (
        "".join(f"\n# backbones.toml: {line}" for line in lines)
    )


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two trees of tables, field by field."""
    merged = dict(base)
    for name, value in override.items():
        base_value = merged.get(name)
        if isinstance(base_value, Mapping) and isinstance(value, Mapping):
            value = _merge(base_value, value)
        merged[name] = value
    return merged


def _first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """Describe pydantic's first error in one line that names the setting."""
    first = error.errors()[0]
    name = safe_keys(first["loc"])
    if first["type"] == "extra_forbidden":
        *tables, key = map(str, first["loc"])
        return f"unknown setting {name!r}{did_you_mean(key, _field_names(kind, tables))}"
    return f"setting {name} = {safe_value(first['input'])}: {first['msg'].lower()}"


def _field_names(kind: type[BaseModel], tables: Sequence[str]) -> Iterable[str]:
    """Return the field names of a nested table; none if the table has no fixed fields."""
    for table in tables:
        annotation = kind.model_fields[table].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ()
        kind = annotation
    return kind.model_fields


def _option_texts(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name in _OMITTED or value is None:
            continue
        yield option_name(name)
        if value is not True:
            yield Path(value).name if name in SPLIT_FILE_FIELDS else _value_text(value)


def option_name(name: str) -> str:
    """Return the option of a setting: ``learning_rate`` becomes ``--learning-rate``."""
    return f"--{name.replace('_', '-')}"


def _value_text(value: Any) -> str:
    return join_names(value) if isinstance(value, list | tuple) else str(value)


def _without_folder(source: str) -> str:
    """Shorten the path in ``NAME=PATH`` to its last part."""
    words = (word.partition("=") for word in source.split(","))
    return ",".join(f"{name}={Path(path).name}" if path else name for name, _, path in words)


def _config_lines(backbones: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, values in backbones.items():
        if values:
            yield f"[backbone.{name}] " + ", ".join(f"{k} = {v!r}" for k, v in values.items())
