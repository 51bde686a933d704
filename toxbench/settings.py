"""Frozen, validated settings. The order that decides: flags > --config TOML > preset > plugin.

Every field of `TrainSettings` and `SplitSettings` is also a command-line option and a TOML key of
the same name, so a new setting is one new field here beside the code that uses it.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toxbench.errors import SettingsError, nearest

Settings = TypeVar("Settings", bound=BaseModel)


class Frozen(BaseModel):
    """Base of everything that is set once or stored: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainSettings(Frozen):
    """How one cell is trained. A plugin sets what it wants to differ; users override any field."""

    epochs: int = Field(4, ge=1, description="passes over the train rows")
    batch_size: int = Field(16, ge=1, description="comments in one forward pass")
    accumulation: int = Field(1, ge=1, description="batches whose gradients make one step")
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="optimizer")
    learning_rate: float = Field(3e-5, gt=0, description="peak rate of the pretrained body")
    head_learning_rate: float = Field(3e-4, gt=0, description="peak rate of the new head")
    weight_decay: float = Field(0.01, ge=0, description="decoupled decay of weight matrices")
    schedule: Literal["linear", "constant"] = Field("linear", description="after the warm-up")
    warmup: float = Field(0.1, ge=0, lt=1, description="fraction of all steps spent warming up")
    clip_norm: float = Field(1.0, ge=0, description="gradient norm is clipped to this; 0: never")
    max_length: int = Field(128, ge=3, description="tokens; longer comments are cut")
    padding: Literal["bucket", "max_length"] = Field(
        "bucket", description="batches of like length, or everything padded to max_length"
    )
    loss: Literal["bce", "weighted-bce", "focal"] = Field("bce", description="training loss")
    pos_weight_cap: float = Field(10.0, ge=1, description="largest weight in weighted-bce")
    focal_gamma: float = Field(2.0, ge=0, description="focusing exponent of focal")
    selection: Literal["best", "last"] = Field(
        "best", description="keep the epoch that is best on validation, or the last one"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the hardware computes in it"
    )


class SplitSettings(Frozen):
    """Which rows are for training, choosing and testing."""

    test_size: float = Field(0.2, gt=0, lt=1, description="fraction of all rows kept for test")
    validation_size: float = Field(
        0.05, ge=0, lt=1, description="fraction of the train rows held out to choose epochs"
    )
    split_seed: int = Field(42, ge=0, lt=2**32, description="random_state of the split")


class ColumnSettings(Frozen):
    """Which columns of the table mean what; what is not named is found."""

    text_column: str | None = None
    id_column: str | None = None
    group_column: str | None = None
    labels: tuple[str, ...] = ()
    encoding: str = "utf-8"


class RunSettings(Frozen):
    """Everything that one run is told. ``train`` and ``split`` hold only what the user set."""

    data: Path | None = Field(None, description="table of comments; none: the synthetic sample")
    columns: ColumnSettings = ColumnSettings()
    backbones: tuple[str, ...] = ("bert", "distilbert")
    baselines: tuple[str, ...] | None = Field(None, description="none: every registered one")
    seeds: int = Field(1, ge=1, le=10_000, description="cells of each backbone: seeds 0, 1, ...")
    weights: tuple[str, ...] = ("auto",)
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    results: Path = Path("results")
    preset: str | None = None
    train: dict[str, Any] = {}
    split: dict[str, Any] = {}
    backbone: dict[str, dict[str, Any]] = Field(
        {}, description="training settings for one backbone alone"
    )


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
            "weight_decay": 0.0,
            "schedule": "constant",
            "warmup": 0.0,
            "clip_norm": 0.0,
            "max_length": 128,
            "padding": "max_length",
            "loss": "bce",
            "selection": "last",
            "precision": "fp32",
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


def read_config(path: Path) -> dict[str, Any]:
    """Read a TOML file whose keys are the fields of `RunSettings`.

    Raises:
        SettingsError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: not TOML: {error}") from error


def run_settings(config: Mapping[str, Any], flags: Mapping[str, Any]) -> RunSettings:
    """Merge a config file and flags, flags first; tables are merged field by field.

    A training flag also wins over what the file says for one backbone alone.

    Raises:
        SettingsError: a key is unknown or a value is impossible.
    """
    merged = dict(config)
    for name, value in flags.items():
        below = merged.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = {**below, **value}
        merged[name] = value
    settings = layered(RunSettings, merged)
    flagged = flags.get("train", {})
    own = {
        backbone: {name: value for name, value in table.items() if name not in flagged}
        for backbone, table in settings.backbone.items()
    }
    return settings.model_copy(update={"backbone": own})


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
        hint = nearest(name, kind.model_fields) if len(first["loc"]) == 1 else ""
        return f"unknown setting {name!r}{hint}"
    return f"setting {name} = {first['input']!r}: {first['msg'].lower()}"


def digest(value: object) -> str:
    """Return the first 12 hex digits of the sha256 of a JSON-like value, in canonical form."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]
