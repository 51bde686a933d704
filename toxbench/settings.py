"""FrozenModel, validated settings; config.py puts them together.

Every field of `TrainSettings` and `SplitSettings` is also a command-line option and a TOML key of
the same name, so a new setting is one new field here beside the code that uses it.
"""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

INNER_FOLDS = 5
DEFAULT_TRIALS = 20
_LONGEST_NAME, _LONGEST_PATH = 255, 4000  # bytes; Linux takes 4095 in all, with what we add
_ADDRESS = re.compile(r"auto|[^\s/:@]+:[0-9]{1,5}")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def possible_path(path: Path) -> Path:
    """Return a path that a file may have.

    Raises:
        ValueError: it holds a character, or is of a length, that no file system takes.
    """
    try:
        sizes = [len(part.encode("utf-8")) for part in (str(path), *path.parts)]
    except UnicodeEncodeError as error:
        raise ValueError(
            "the path is not UTF-8, which results are written in; rename it"
        ) from error
    if "\0" in str(path):
        raise ValueError("a NUL character is in the path")
    if sizes[0] > _LONGEST_PATH or max(sizes[1:], default=0) > _LONGEST_NAME:
        raise ValueError(f"a name in a path has at most {_LONGEST_NAME} bytes; use a shorter one")
    return path


class FrozenModel(BaseModel):
    """Base of everything that is set once or stored: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainSettings(FrozenModel):
    """How one cell is trained. A plugin sets what it wants to differ; users override any field."""

    epochs: int = Field(4, ge=1, description="passes over the train rows")
    batch_size: int = Field(16, ge=1, description="comments in one forward pass")
    accumulation: int = Field(1, ge=1, description="batches whose gradients make one step")
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="optimizer")
    learning_rate: float = Field(3e-5, gt=0, description="peak rate of the pretrained body")
    head_learning_rate: float = Field(3e-4, gt=0, description="peak rate of the new head")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="rate of a body layer as a fraction of the layer above it"
    )
    weight_decay: float = Field(0.01, ge=0, description="decoupled decay of weight matrices")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="probability of every dropout layer; unset: the checkpoint's"
    )
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
    eval_steps: int = Field(
        0, ge=0, description="steps between two looks at validation; 0: an epoch"
    )
    patience: int = Field(
        0, ge=0, description="looks without a higher score that end training; 0: never"
    )


class SplitSettings(FrozenModel):
    """Which rows are for training, choosing and testing."""

    split: Literal["random", "stratified", "grouped"] = Field(
        "random", description="how rows are drawn; grouped keeps a group on one side"
    )
    folds: int = Field(
        1, ge=1, le=100, description="with 2 or more, every row is tested once, in one of them"
    )
    test_size: float = Field(
        0.2, gt=0, lt=1, description="fraction of all rows kept for test, with one fold"
    )
    validation_size: float = Field(
        0.05, ge=0, lt=1, description="fraction of the train rows held out to choose epochs"
    )
    split_seed: int = Field(42, ge=0, lt=2**32, description="random_state of the split")
    split_file: Path | None = Field(
        None, description="JSON of the rows in each part: read if it is there, else written"
    )
    test: Path | None = Field(
        None, description="table of the official test rows; those of --data are for training"
    )
    valid: Path | None = Field(None, description="table of the official validation rows")
    split_column: str | None = Field(
        None, description="column that says train, validation or test of each row"
    )

    @field_validator("split_file", "test", "valid")
    @classmethod
    def _is_possible(cls, value: Path | None) -> Path | None:
        return None if value is None else possible_path(value)


# What of `SplitSettings` says how rows are drawn, and what names a file.
DRAWING = ("split", "folds", "test_size", "validation_size", "split_seed")
SPLIT_FILES = ("split_file", "test", "valid")


# What a label may say without being mapped, in any case.
TRUE_WORDS = frozenset({"1", "true"})
FALSE_WORDS = frozenset({"0", "false"})


def plain_word(value: str) -> str:
    """Fold what does not make two words of a label different: case and outer white space."""
    return value.strip().lower()


def _words(value: object) -> object:
    """Take text for a comma list, and numbers for the words that a table would hold."""
    if isinstance(value, str):
        return tuple(word for word in value.split(",") if word.strip())
    if isinstance(value, list | tuple):
        return tuple(str(word) if isinstance(word, int | float) else word for word in value)
    return value


class ColumnSettings(FrozenModel):
    """Which columns of the table mean what; what is not named is found.

    ``true_values`` and ``false_values`` are words that mean 1 and 0 in a label column, besides
    those that always do. With ``drop_empty``, rows without a text are left out.
    """

    text_column: str | None = None
    id_column: str | None = None
    group_column: str | None = None
    labels: tuple[str, ...] = ()
    true_values: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    false_values: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    drop_empty: bool = False
    encoding: str = "utf-8"

    @field_validator("true_values", "false_values")
    @classmethod
    def _mean_one_thing(cls, words: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Refuse what is blank, always means the contrary, or is said to mean both."""
        is_true = info.field_name == "true_values"
        always = FALSE_WORDS if is_true else TRUE_WORDS
        others = set() if is_true else {plain_word(w) for w in info.data.get("true_values", ())}
        for word in map(plain_word, words):
            if not word:
                raise ValueError("a blank is never a label; mend the table")
            if any("\ud800" <= character <= "\udfff" for character in word):
                raise ValueError(f"{word!a} is no text: half of a surrogate pair stands alone")
            if word in always:
                meaning = "no" if is_true else "yes"
                raise ValueError(f"{word!a} always means {meaning}; leave it out")
            if word in others:
                raise ValueError(f"{word!a} is among true_values, too; leave it out of one")
        return words


def _listed(value: object) -> object:
    """Take a word for a list of one."""
    return (value,) if isinstance(value, str) else value


class RunSettings(FrozenModel):
    """Everything that one run is told. ``train`` and ``split`` hold only what the user set."""

    data: Path | None = Field(None, description="table of comments; none: the synthetic sample")
    columns: ColumnSettings = ColumnSettings()
    backbones: tuple[str, ...] = ("bert", "distilbert")
    baselines: tuple[str, ...] | None = Field(None, description="none: every registered one")
    seeds: int = Field(1, ge=1, le=10_000, description="cells of each backbone: seeds 0, 1, ...")
    weights: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("auto",)
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    plugins: tuple[str, ...] | None = Field(
        None, description="plugins of others that may load; none: every installed one"
    )
    workers: int | None = Field(
        None, ge=1, le=1000, description="cells computed at once, in processes; none: what pays"
    )
    executor: Literal["local", "ray"] = Field(
        "local", description="what computes cells; results are the same"
    )
    ray_address: str | None = Field(
        None, description="of a Ray cluster; none: Ray is started on this machine"
    )
    cpus_per_cell: int | None = Field(
        None, ge=1, description="threads of a cell; none: the cores are shared among workers"
    )
    gpus_per_cell: float | None = Field(
        None, gt=0, le=1, description="what a cell on CUDA gets of a GPU; none: all of it"
    )
    save_models: Literal["best", "all", "none"] = Field(
        "best", description="best: of each backbone the model that is best on validation rows"
    )
    cell_timeout: str | None = Field(
        None, description="time that a cell may take, such as 90s, 30m or 2h; none: any"
    )
    results: Path = Path("results")
    preset: str | None = None
    train: dict[str, Any] = {}
    split: dict[str, Any] = {}
    backbone: dict[str, dict[str, Any]] = Field(
        {}, description="training settings for one backbone alone"
    )
    checkpoint_every: str = Field(
        "10m", description="training time after which a cell's state is kept, to go on from it"
    )
    trackers: tuple[str, ...] = Field((), description="told of epochs and cells; see --trackers")
    tuned: bool = Field(False, description="each backbone once more, with the settings found")
    resume: bool = Field(False, description="only go on with stored results of this table, split")
    tune: dict[str, Any] = Field({}, description="fields of TuneSettings; only tune reads them")

    @field_validator("cell_timeout", "checkpoint_every")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return _time(value)

    @field_validator("ray_address")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not _ADDRESS.fullmatch(value):
            raise ValueError(
                "an address is auto or HOST:PORT; a command joins the cluster from one of its nodes"
            )
        return value

    @field_validator("data", "results")
    @classmethod
    def _is_possible(cls, value: Path | None) -> Path | None:
        return None if value is None else possible_path(value)


class TuneSettings(FrozenModel):
    """How hyperparameters are searched, for each backbone alike."""

    trials: int | None = Field(
        None,
        ge=1,
        description="finished trials of each backbone, over all workers and restarts; 20 if unset",
    )
    budget: str | None = Field(
        None, description="training time of each backbone's trials, such as 90s, 30m or 2h"
    )
    sampler: Literal["tpe", "random", "grid"] = Field("tpe", description="how trials are drawn")
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median", description="how bad trials are ended early"
    )
    inner_folds: int = Field(
        1, ge=1, le=INNER_FOLDS, description="inner folds that a trial's score is the mean of"
    )
    finalists: int = Field(
        3, ge=1, description="best trials that are trained again, beside the default settings"
    )
    finalist_seeds: int = Field(1, ge=1, description="fresh seeds for each of them")
    tune_seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampler and of all trials")
    storage: str | None = Field(
        None, description="SQLAlchemy URL of a shared study; unset: SQLite in the results folder"
    )
    space: dict[str, Any] = Field({}, description="hyperparameter -> range or choices")

    @property
    def limit(self) -> int | None:
        """Finished trials to reach; None: only the budget counts."""
        if self.trials is None and self.budget is None:
            return DEFAULT_TRIALS
        return self.trials

    @field_validator("budget")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return _time(value)


def seconds(text: str) -> float:
    """Read a time such as ``90s``, ``30m`` or ``1.5h``.

    Raises:
        ValueError: it is no such time, or none at all.
    """
    number, unit = text.strip()[:-1], text.strip()[-1:]
    try:
        value = float(number) * _SECONDS[unit]
    except (ValueError, KeyError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError("a time is a number with s, m or h behind it, such as 30m")
    return value


def _time(value: str | None) -> str | None:
    """Return it as it is, if it is a time or unset; raises ValueError."""
    if value is not None:
        seconds(value)
    return value


def digest(value: object) -> str:
    """Return the first 12 hex digits of the sha256 of a JSON-like value, in canonical form."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]
