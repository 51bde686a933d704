"""Search spaces: what users write, checked, and drawn as settings."""

import tomllib
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from optuna.trial import Trial

from toxbench.config import build_settings
from toxbench.errors import SettingsError, did_you_mean
from toxbench.plugin.contracts import Choice, Dimension, Range, Space, Value
from toxbench.settings import TrainSettings, validate_path

_GRID_POINTS = 3
_MOST_POINTS = 10_000
# Not searched: an inner fold's last epoch is scored, so `epochs` does what `selection` would.
NEVER = {
    "selection": "the number of epochs is searched instead",
    "seed": "a seed is no hyperparameter",
    "precision": "it is chosen for the machine; name one with --precision",
}


def parse_options(values: Iterable[str]) -> dict[str, Any]:
    """Read ``--space`` options: ``NAME=TEXT``, or a TOML file with such keys.

    Raises:
        SettingsError: neither of both.
    """
    space: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        space |= {name.strip(): text} if equals else _read(Path(value))
    return {name.replace("-", "_"): value for name, value in space.items()}


def parse_dimension(name: str, value: Any) -> Dimension:
    """Read ``low:high``, ``low:high:log`` or ``a,b,c``, each with ``:SETTING=VALUE`` behind it.

    A TOML list is a choice, and a single value is a choice of one.

    Raises:
        SettingsError: it is none of them.
    """
    if isinstance(value, list | tuple):
        return Choice(tuple(value))
    first, *rest = str(value).split(":")
    when = None
    if rest and "=" in rest[-1]:
        setting, _, wanted = rest.pop().partition("=")
        when = (setting.strip(), _number(wanted.strip()))
    if not rest:
        return Choice(tuple(_number(word.strip()) for word in first.split(",")), when)
    low, high = _number(first), _number(rest[0])
    if isinstance(low, str) or isinstance(high, str) or rest[1:] not in ([], ["log"]):
        raise SettingsError(
            f"--space {name}={value}: write low:high, low:high:log or a,b,c, "
            "and :SETTING=VALUE behind it if it depends on another"
        )
    return Range(low, high, log=rest[1:] == ["log"], when=when)


def checked_space(space: Space, base: TrainSettings, origin: str) -> dict[str, Dimension]:
    """Check every dimension against the settings; return them, each after what it depends on.

    Args:
        space: setting name -> dimension.
        base: the values of all settings that are not searched.
        origin: who declared the space, for messages.

    Raises:
        SettingsError: a name is unknown, a value impossible, a range empty, or nothing is left.
    """
    for name, dimension in space.items():
        _check(name, dimension, base, origin)
    depends = {name: [d.when[0]] if d.when else [] for name, d in space.items()}
    try:
        order = list(TopologicalSorter(depends).static_order())
    except CycleError as error:
        circle = " on ".join(error.args[1])
        raise SettingsError(f"{origin}: conditions in a circle: {circle}") from error
    kept: dict[str, Dimension] = {}
    for name in order:
        if name in space and _possible(space[name], kept, base):
            kept[name] = space[name]
    if not kept:
        raise SettingsError(f"{origin}: nothing to search; name a range: --space epochs=2:8")
    return kept


def draw(trial: Trial, space: Mapping[str, Dimension], base: TrainSettings) -> TrainSettings:
    """Draw a value for every dimension whose condition holds, and return whole settings."""
    values = base.model_dump()
    for name, dimension in space.items():
        if _holds(dimension, values):
            values[name] = _suggest(trial, name, dimension)
    return TrainSettings(**values)


def default_values(space: Mapping[str, Dimension], base: TrainSettings) -> dict[str, Value]:
    """Return the default of each dimension that has it inside; the rest cannot be told Optuna."""
    values = base.model_dump()
    return {
        name: values[name]
        for name, dimension in space.items()
        if _holds(dimension, values) and _contains(dimension, values[name])
    }


def grid(space: Mapping[str, Dimension], base: TrainSettings) -> list[dict[str, Value]]:
    """Return the different points of a grid: all choices, and three values of each range.

    Raises:
        SettingsError: they are more than anybody would train.
    """
    points: list[dict[str, Value]] = [{}]
    values = base.model_dump()
    for name, dimension in space.items():
        # A point without the dimension stays as it is.
        points = [
            {**point, **addition}
            for point in points
            for addition in (
                [{name: value} for value in _points(name, dimension)]
                if _holds(dimension, {**values, **point})
                else [{}]
            )
        ]
        if len(points) > _MOST_POINTS:
            raise SettingsError(
                f"--sampler grid: more than {_MOST_POINTS} points; name a few values of few "
                "settings with --space, and fix the others with their options"
            )
    return points


def described(dimension: Dimension) -> str:
    """Write a dimension as users would."""
    if isinstance(dimension, Choice):
        text = ",".join(map(str, dimension.values))
    else:
        text = f"{dimension.low:g}:{dimension.high:g}{':log' if dimension.log else ''}"
    return text if dimension.when is None else f"{text}:{dimension.when[0]}={dimension.when[1]}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(validate_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"--space {path}: neither NAME=RANGE nor a TOML file that can be read"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--space {path}: not TOML: {error}") from error
    except ValueError as error:
        raise SettingsError(f"--space: {error}") from error


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _check(name: str, dimension: Dimension, base: TrainSettings, origin: str) -> None:
    if name in NEVER:
        raise SettingsError(f"{origin}: {name} is not searched: {NEVER[name]}")
    if not isinstance(dimension, Range | Choice):
        raise SettingsError(
            f"{origin}: {name} is a {type(dimension).__name__}, not Range or Choice"
        )
    if isinstance(dimension, Choice):
        _check_choice(name, dimension, origin)
        values: tuple[Value, ...] = tuple(dimension.values)
    else:
        _check_range(name, dimension, origin)
        values = (dimension.low, dimension.high)
    known = [(name, value) for value in values] + ([dimension.when] if dimension.when else [])
    for setting, value in known:
        if setting not in TrainSettings.model_fields:
            hint = did_you_mean(setting, TrainSettings.model_fields)
            raise SettingsError(f"{origin}: unknown setting {setting!r}{hint}")
        try:
            build_settings(TrainSettings, base.model_dump(), {setting: value})
        except SettingsError as error:
            raise SettingsError(f"{origin}: {error}") from error
        if not _is_of_its_type(setting, value):  # what would be read as one is none
            raise SettingsError(f"{origin}: setting {setting} = {value!r}: of the wrong type")


def _check_choice(name: str, choice: Choice, origin: str) -> None:
    if not choice.values:
        raise SettingsError(f"{origin}: {name} has no values to choose from")
    odd = next((v for v in choice.values if not isinstance(v, str | int | float)), None)
    if odd is not None:
        raise SettingsError(f"{origin}: setting {name} = {odd!r}: neither a number nor a word")
    if len(set(choice.values)) < len(choice.values):
        raise SettingsError(f"{origin}: {name} names a value twice")


def _check_range(name: str, span: Range, origin: str) -> None:
    if not all(type(end) in {int, float} for end in (span.low, span.high)):
        raise SettingsError(f"{origin}: {name}: both ends of a range are numbers")
    if not span.low < span.high or (span.log and span.low <= 0):
        above = ", from above 0 on a logarithmic scale" if span.log else ""
        raise SettingsError(f"{origin}: {name}={described(span)}: the range must go upwards{above}")


def _is_of_its_type(setting: str, value: object) -> bool:
    """Whether a value is a whole number, a number or a word, as the setting is."""
    if _is_whole(setting):
        return type(value) is int or (type(value) is float and value.is_integer())
    annotation = TrainSettings.model_fields[setting].annotation
    if annotation in (float, float | None):
        return type(value) in {int, float}
    return isinstance(value, str)


def _holds(dimension: Dimension, values: Mapping[str, Any]) -> bool:
    return dimension.when is None or bool(values[dimension.when[0]] == dimension.when[1])


def _possible(dimension: Dimension, space: Space, base: TrainSettings) -> bool:
    """Whether a dimension's condition can hold at all."""
    if dimension.when is None:
        return True
    setting, wanted = dimension.when
    other = space.get(setting)
    if other is None:
        return bool(getattr(base, setting) == wanted)
    return _contains(other, wanted)


def _contains(dimension: Dimension, value: object) -> bool:
    if isinstance(dimension, Choice):
        return value in dimension.values
    return isinstance(value, int | float) and dimension.low <= value <= dimension.high


def _is_whole(name: str) -> bool:
    return TrainSettings.model_fields[name].annotation is int


def _suggest(trial: Trial, name: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(name, dimension.values)
    if _is_whole(name):
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)


def _points(name: str, dimension: Dimension) -> list[Value]:
    if isinstance(dimension, Choice):
        return list(dimension.values)
    low, high = dimension.low, dimension.high
    steps = [i / (_GRID_POINTS - 1) for i in range(_GRID_POINTS)]
    points = [
        low * (high / low) ** step if dimension.log else low + (high - low) * step for step in steps
    ]
    # Rounding must not leave the range.
    points = [min(max(point, low), high) for point in points]
    return list(dict.fromkeys(round(p) if _is_whole(name) else p for p in points))
