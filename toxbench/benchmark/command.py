"""The command that asks for a run, as it may be stored: files by their names, no folders."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toxbench.settings import SPLIT_FILES, RunSettings
from toxbench.training.place import ALONE, Place

_GROUPS = ("columns", "train", "split")  # whose fields are options of their own
_PLAIN = ("preset", "seeds", "device", "workers", "cpus_per_cell", "cell_timeout", "tuned")
_LISTS = ("backbones", "baselines", "plugins")
_ELSEWHERE = {"storage", "space"}  # where a study is; and what has a form of its own


def command_of(verb: str, settings: RunSettings, place: Place = ALONE) -> str:
    """Write a command line that asks for the same; what is left at its default is left out.

    Settings of one backbone alone have no option: they follow as the lines of a ``--config`` file.

    Args:
        verb: ``run`` or ``tune``.
        settings: of the run.
        place: of this process among those that run it.
    """
    said = {"backbones": settings.backbones, **settings.model_dump(exclude_defaults=True)}
    words = [*place.command.split(), verb]
    if settings.data is not None:
        words += ["--data", settings.data.name]
    for name in _LISTS:
        if name in said:
            words += [_option(name), ",".join(said[name]) or "none"]
    for source in said.get("weights", ()):
        words += ["--weights", _by_name(source)]
    for group in (*([] if verb == "run" else ["tune"]), *_GROUPS):
        words += _options(said.get(group, {}))
    words += _options({name: said[name] for name in _PLAIN if name in said})
    for name, dimension in settings.tune.get("space", {}).items() if verb == "tune" else ():
        words += ["--space", f"{name}={_range(dimension)}"]
    tables = list(_tables(settings.backbone))
    return shlex.join([*words, *(["--config", "backbones.toml"] if tables else [])]) + (
        "".join(f"\n# backbones.toml: {table}" for table in tables)
    )


def _options(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name in _ELSEWHERE or value is None:
            continue
        yield _option(name)
        if value is not True:
            yield Path(value).name if name in SPLIT_FILES else _word(value)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _by_name(source: str) -> str:
    """Keep of ``NAME=FOLDER`` the last part of the folder."""
    words = (word.partition("=") for word in source.split(","))
    return ",".join(f"{name}={Path(path).name}" if path else name for name, _, path in words)


def _range(dimension: object) -> str:
    return dimension if isinstance(dimension, str) else _word(dimension)


def _tables(backbones: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, values in backbones.items():
        if values:
            yield f"[backbone.{name}] " + ", ".join(f"{k} = {v!r}" for k, v in values.items())
