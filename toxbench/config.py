"""How settings are put together; what decides: flags > --config TOML > preset > plugin."""

import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from toxbench.errors import SettingsError, nearest
from toxbench.settings import SPLIT_FILES, Frozen, RunSettings, possible_path

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


class Preset(Frozen):
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


_OPTION_TABLES = ("columns", "train", "split")  # whose fields are options
_PLAIN_OPTIONS = ("preset", "seeds", "device", "workers", "cpus_per_cell", "cell_timeout", "tuned")
_LIST_OPTIONS = ("backbones", "baselines", "plugins")
_LEFT_OUT = {"storage", "space"}  # of one machine; written below in another form


def command_line(verb: str, settings: RunSettings, program: str = "toxbench") -> str:
    """Return the command line that repeats a run elsewhere, without defaults and folders.

    Settings of a single backbone have no option: they follow as the lines of a ``--config`` file.

    Args:
        verb: ``run`` or ``tune``.
        settings: of the run.
        program: starts toxbench.
    """
    values = {"backbones": settings.backbones, **settings.model_dump(exclude_defaults=True)}
    words = [*program.split(), verb]
    if settings.data is not None:
        words += ["--data", settings.data.name]
    for name in _LIST_OPTIONS:
        if name in values:
            words += [_option(name), ",".join(values[name]) or "none"]
    for source in values.get("weights", ()):
        words += ["--weights", _without_folder(source)]
    for table in (*([] if verb == "run" else ["tune"]), *_OPTION_TABLES):
        words += _option_words(values.get(table, {}))
    words += _option_words({name: values[name] for name in _PLAIN_OPTIONS if name in values})
    for name, dimension in settings.tune.get("space", {}).items() if verb == "tune" else ():
        words += ["--space", f"{name}={_word(dimension)}"]
    lines = list(_config_lines(settings.backbone))
    return shlex.join([*words, *(["--config", "backbones.toml"] if lines else [])]) + (
        "".join(f"\n# backbones.toml: {line}" for line in lines)
    )


def _option_words(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name in _LEFT_OUT or value is None:
            continue
        yield _option(name)
        if value is not True:
            yield Path(value).name if name in SPLIT_FILES else _word(value)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _without_folder(source: str) -> str:
    """Shorten the path in ``NAME=PATH`` to its last part."""
    words = (word.partition("=") for word in source.split(","))
    return ",".join(f"{name}={Path(path).name}" if path else name for name, _, path in words)


def _config_lines(backbones: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, values in backbones.items():
        if values:
            yield f"[backbone.{name}] " + ", ".join(f"{k} = {v!r}" for k, v in values.items())
