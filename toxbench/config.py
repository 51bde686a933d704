"""Merging of settings: options, the environment, --config, pyproject.toml, preset, plugin."""

import os
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from toxbench.errors import SettingsError, did_you_mean
from toxbench.settings import (
    SPLIT_FILE_FIELDS,
    Preset,
    RunSettings,
    SplitSettings,
    TrainSettings,
    TuneSettings,
    is_folder,
    validate_path,
)
from toxbench.util.table_source import source_name
from toxbench.util.text import join_names, safe_keys, safe_quote, safe_value

Settings = TypeVar("Settings", bound=BaseModel)
Layer = Mapping[str, Any]  # fields of `RunSettings` from one source
PROJECT_FILE = "pyproject.toml"
RESULTS_VARIABLE = "TOXBENCH_RESULTS"

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
            "long_text": "head",
            "padding": "max_length",
            "adaptation": "full",
            "head_init": "random",
            "loss": "bce",
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


def read_config(path: Path, source: str = "--config") -> dict[str, Any]:
    """Read a TOML file whose keys are the fields of `RunSettings`.

    Raises:
        SettingsError: the file cannot be read or is not TOML; ``source`` is in the message.
    """
    try:
        return tomllib.loads(validate_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{source} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{source} {path}: not TOML: {error}") from error
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from error


def setting_layers(config: Path | None = None) -> dict[str, Layer]:
    """Return source -> settings, the weakest first.

    The sources are ``[tool.toxbench]`` in pyproject.toml of the current folder, a config file, and
    environment variables.

    Raises:
        SettingsError: a file cannot be read, or pyproject.toml has an unknown or impossible
            setting.
    """
    layers = {PROJECT_FILE: _project_settings()}
    if config is not None:
        layers[f"--config {config}"] = read_config(config)
    if results := os.environ.get(RESULTS_VARIABLE):
        layers[RESULTS_VARIABLE] = {"results": results}
    return layers


def results_folder() -> Path:
    """Return the folder of all results for commands that have no config file."""
    return build_run_settings(*setting_layers().values()).results


def build_run_settings(*layers: Layer) -> RunSettings:
    """Merge layers of settings; a later layer overrides an earlier one.

    Tables are merged field by field. A training setting also overrides the tables of single
    backbones in earlier layers.

    Raises:
        SettingsError: a key is unknown or a value is impossible.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        tables = {name: layer[name] for name in ("train", "backbone") if name in layer}
        stronger = build_settings(RunSettings, tables).train
        backbones = {
            backbone: {name: value for name, value in table.items() if name not in stronger}
            for backbone, table in merged.get("backbone", {}).items()
        }
        merged = _merge({**merged, "backbone": backbones}, layer)
    return build_settings(RunSettings, merged)


def setting_sources(layers: Mapping[str, Layer]) -> dict[str, tuple[object, str]]:
    """Return the value and the last source of every setting, such as ``train.epochs``.

    Raises:
        SettingsError: as `build_run_settings`.
    """
    preset = build_run_settings(*layers.values()).preset
    defaults = (
        {"data": None}
        | RunSettings().model_dump()
        | {
            "train": TrainSettings().model_dump(),
            "split": SplitSettings().model_dump(),
            "tune": TuneSettings().model_dump(),
        }
    )
    sources = {"default": defaults, f"preset {preset}": get_preset(preset).model_dump(), **layers}
    return {
        name: (value, source) for source, layer in sources.items() for name, value in _flat(layer)
    }


def _flat(table: Layer, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _project_settings() -> Layer:
    path = Path(PROJECT_FILE)
    content = read_config(path, "settings in") if path.is_file() else {}
    tool = content.get("tool")
    settings: Layer = tool.get("toxbench", {}) if isinstance(tool, Mapping) else {}
    try:
        if not isinstance(settings, Mapping):
            raise SettingsError("it is not a table")
        build_settings(RunSettings, settings)
    except SettingsError as error:
        raise SettingsError(f"[tool.toxbench] in {PROJECT_FILE}: {error}") from error
    return settings


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

    Settings of a single candidate have no option: they follow as the lines of a ``--config`` file.
    """
    values = settings.model_dump(exclude_defaults=True)
    values["backbones"] = [_without_parents(word) for word in settings.backbones]
    words = [*program.split(), verb]
    if settings.data is not None:
        words += ["--data", source_name(settings.data)]
    for name in (*_LIST_OPTIONS, *(["sizes"] if verb == "curve" else [])):
        if name in values:
            words += [option_name(name), join_names(values[name]) or "none"]
    for source in values.get("weights", ()):
        words += ["--weights", _without_folder(source)]
    for table in (*(["tune"] if verb == "tune" else []), *_OPTION_TABLES):
        words += _option_texts(values.get(table, {}))
    words += _option_texts({name: values[name] for name in _PLAIN_OPTIONS if name in values})
    for name, dimension in settings.tune.get("space", {}).items() if verb == "tune" else ():
        words += ["--space", f"{name}={_value_text(dimension)}"]
    lines = [
        *_config_lines("backbone", settings.backbone),
        *_config_lines("baseline", settings.baseline),
    ]
    return shlex.join([*words, *(["--config", "candidates.toml"] if lines else [])]) + (
        "".join(f"\n# candidates.toml: {line}" for line in lines)
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
    reason = first["msg"].removeprefix("Value error, ").lower()
    return f"setting {name} = {safe_value(first['input'])}: {reason}"


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


def _without_parents(value: Any) -> Any:
    """Shorten a folder to its last part; return any other value unchanged."""
    return f"./{Path(value).name}" if isinstance(value, str) and is_folder(value) else value


def _config_lines(kind: str, candidates: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, values in candidates.items():
        if values:
            texts = (f"{key} = {_without_parents(value)!r}" for key, value in values.items())
            yield f"[{kind}.{name}] {', '.join(texts)}"
