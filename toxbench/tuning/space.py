"""Search spaces: parsing, validation, sampling and grids."""

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

_POINTS_PER_RANGE = 3
_MAX_GRID_POINTS = 10_000
# Settings that cannot be searched, with the reason.
EXCLUDED_SETTINGS = {
    "seed": "a seed is not a hyperparameter",
    "adaptation": "only full training is searched",
    "precision": "it depends on the machine; set it with --precision",
}


def parse_options(values: Iterable[str]) -> dict[str, Any]:
    """Parse ``--space`` options: ``NAME=TEXT``, or the path of a TOML file with such keys.

    Raises:
        SettingsError: an option is neither of these.
    """
    space: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        space |= {name.strip(): text} if equals else _read_toml(Path(value))
    return {name.replace("-", "_"): value for name, value in space.items()}


def parse_dimension(name: str, value: Any) -> Dimension:
    """Parse ``low:high``, ``low:high:log`` or ``a,b,c``, each optionally with ``:SETTING=VALUE``.

    A TOML list is a choice, and a single value is a choice with one value.

    Raises:
        SettingsError: the text has none of these forms.
    """
    if isinstance(value, list | tuple):
        return Choice(tuple(value))
    first, *rest = str(value).split(":")
    when = None
    if rest and "=" in rest[-1]:
        setting, _, condition_value = rest.pop().partition("=")
        when = (setting.strip(), _parse_value(condition_value.strip()))
    if not rest:
        return Choice(tuple(_parse_value(word.strip()) for word in first.split(",")), when)
    low, high = _parse_value(first), _parse_value(rest[0])
    if isinstance(low, str) or isinstance(high, str) or rest[1:] not in ([], ["log"]):
        raise SettingsError(
            f"--space {name}={value}: write low:high, low:high:log or a,b,c, "
            "and append :SETTING=VALUE if it depends on another setting"
        )
    return Range(low, high, log=rest[1:] == ["log"], when=when)


def format_dimension(dimension: Dimension) -> str:
    """Return a dimension in the form that `parse_dimension` reads."""
    if isinstance(dimension, Choice):
        text = ",".join(map(str, dimension.values))
    else:
        text = f"{dimension.low:g}:{dimension.high:g}{':log' if dimension.log else ''}"
    return text if dimension.when is None else f"{text}:{dimension.when[0]}={dimension.when[1]}"


def check_space(space: Space, base: TrainSettings, origin: str) -> dict[str, Dimension]:
    """Check every dimension against the settings.

    Args:
        space: setting name -> dimension.
        base: the values of all settings that are not searched.
        origin: name of the space, for messages.

    Returns:
        the dimensions whose condition can hold, each after the one that it depends on.

    Raises:
        SettingsError: a name is unknown, a value impossible, a range empty, or no dimension is
            left.
    """
    for name, dimension in space.items():
        _check_dimension(name, dimension, base, origin)
    depends = {name: [d.when[0]] if d.when else [] for name, d in space.items()}
    try:
        order = list(TopologicalSorter(depends).static_order())
    except CycleError as error:
        cycle = ", ".join(error.args[1])
        raise SettingsError(
            f"{origin}: conditions depend on each other: {cycle}; remove one"
        ) from error
    checked_space: dict[str, Dimension] = {}
    for name in order:
        if name in space and _can_be_active(space[name], checked_space, base):
            checked_space[name] = space[name]
    if not checked_space:
        raise SettingsError(f"{origin}: nothing to search; add a range: --space epochs=2:8")
    return checked_space


def suggest_settings(
    trial: Trial, space: Mapping[str, Dimension], base: TrainSettings
) -> TrainSettings:
    """Return ``base`` with a sampled value for every dimension whose condition holds."""
    values = base.model_dump()
    for name, dimension in space.items():
        if _is_active(dimension, values):
            values[name] = _suggest(trial, name, dimension)
    return TrainSettings(**values)


def default_values(space: Mapping[str, Dimension], base: TrainSettings) -> dict[str, Value]:
    """Return the default values that lie inside their dimension; Optuna accepts no others."""
    values = base.model_dump()
    return {
        name: values[name]
        for name, dimension in space.items()
        if _is_active(dimension, values) and _contains(dimension, values[name])
    }


def make_grid(space: Mapping[str, Dimension], base: TrainSettings) -> list[dict[str, Value]]:
    """Return the distinct points of a grid: all choices, and three values of each range.

    Raises:
        SettingsError: there are more than 10,000 points.
    """
    points: list[dict[str, Value]] = [{}]
    values = base.model_dump()
    for name, dimension in space.items():
        # A point where the dimension is not active stays as it is.
        points = [
            {**point, **addition}
            for point in points
            for addition in (
                [{name: value} for value in _grid_values(name, dimension)]
                if _is_active(dimension, {**values, **point})
                else [{}]
            )
        ]
        if len(points) > _MAX_GRID_POINTS:
            raise SettingsError(
                f"--sampler grid: more than {_MAX_GRID_POINTS} points; search fewer settings or "
                "values with --space, and fix the other settings with their options"
            )
    return points


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(validate_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"--space {path}: neither NAME=RANGE nor a readable TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--space {path}: not TOML: {error}") from error
    except ValueError as error:
        raise SettingsError(f"--space: {error}") from error


def _parse_value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _check_dimension(name: str, dimension: Dimension, base: TrainSettings, origin: str) -> None:
    if name in EXCLUDED_SETTINGS:
        raise SettingsError(f"{origin}: {name} cannot be searched: {EXCLUDED_SETTINGS[name]}")
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
    pairs = [(name, value) for value in values] + ([dimension.when] if dimension.when else [])
    for setting, value in pairs:
        if setting not in TrainSettings.model_fields:
            hint = did_you_mean(setting, TrainSettings.model_fields)
            raise SettingsError(f"{origin}: unknown setting {setting!r}{hint}")
        try:
            build_settings(TrainSettings, base.model_dump(), {setting: value})
        except SettingsError as error:
            raise SettingsError(f"{origin}: {error}") from error
        if not _has_type_of(setting, value):  # pydantic would convert it
            raise SettingsError(f"{origin}: setting {setting} = {value!r} has the wrong type")


def _check_choice(name: str, choice: Choice, origin: str) -> None:
    if not choice.values:
        raise SettingsError(f"{origin}: {name} has no values to choose from")
    invalid = next((v for v in choice.values if not isinstance(v, str | int | float)), None)
    if invalid is not None:
        raise SettingsError(f"{origin}: setting {name} = {invalid!r}: not a number or a string")
    if len(set(choice.values)) < len(choice.values):
        raise SettingsError(f"{origin}: {name} lists a value twice")


def _check_range(name: str, span: Range, origin: str) -> None:
    if not all(type(end) in {int, float} for end in (span.low, span.high)):
        raise SettingsError(f"{origin}: {name}: both ends of a range must be numbers")
    if not span.low < span.high or (span.log and span.low <= 0):
        positive = ", and above 0 on a logarithmic scale" if span.log else ""
        raise SettingsError(
            f"{origin}: {name}={format_dimension(span)}: low must be below high{positive}"
        )


def _has_type_of(setting: str, value: object) -> bool:
    """Whether a value is a whole number, a number or a string, as the setting requires."""
    if _is_whole(setting):
        return type(value) is int or (type(value) is float and value.is_integer())
    annotation = TrainSettings.model_fields[setting].annotation
    if annotation in (float, float | None):
        return type(value) in {int, float}
    return isinstance(value, str)


def _is_active(dimension: Dimension, values: Mapping[str, Any]) -> bool:
    """Whether a dimension has no condition, or its condition holds for these values."""
    return dimension.when is None or bool(values[dimension.when[0]] == dimension.when[1])


def _can_be_active(dimension: Dimension, space: Space, base: TrainSettings) -> bool:
    """Whether a dimension's condition can hold for any values of the space."""
    if dimension.when is None:
        return True
    setting, condition_value = dimension.when
    parent = space.get(setting)
    if parent is None:
        return bool(getattr(base, setting) == condition_value)
    return _contains(parent, condition_value)


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


def _grid_values(name: str, dimension: Dimension) -> list[Value]:
    if isinstance(dimension, Choice):
        return list(dimension.values)
    low, high = dimension.low, dimension.high
    shares = [i / (_POINTS_PER_RANGE - 1) for i in range(_POINTS_PER_RANGE)]
    values = [
        low * (high / low) ** share if dimension.log else low + (high - low) * share
        for share in shares
    ]
    values = [min(max(value, low), high) for value in values]  # rounding can leave the range
    return list(dict.fromkeys(round(v) if _is_whole(name) else v for v in values))
