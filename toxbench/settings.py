"""Immutable, validated settings. `toxbench.config` merges them from files and options.

Every field of `TrainSettings` and `SplitSettings` is also a command-line option and a TOML key of
the same name, so a new setting needs only a field here and the code that uses it.
"""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)  # fmt: skip

from toxbench.util.table_source import TableSource, source_paths, to_source
from toxbench.util.text import safe_quote

INNER_FOLDS = 5
DEFAULT_TRIALS = 20
# Fields of `SplitSettings` that control the random split, and those that name a file.
SPLIT_FIELDS = ("split", "folds", "test_size", "validation_size", "split_seed")
SPLIT_FILE_FIELDS = ("split_file", "test", "valid")
# Label values that need no mapping, in any case.
TRUE_WORDS = frozenset({"1", "true"})
FALSE_WORDS = frozenset({"0", "false"})
BLANK = "blank"  # stands for an empty cell among ``unlabelled``
NO_COLUMN = "none"  # stands for no id column

_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 4000  # Linux allows 4095, including the names that toxbench appends
_ADDRESS = re.compile(r"auto|[^\s/:@]+:[0-9]{1,5}")
_WHOLE_NUMBER = re.compile(r"\A([+-]?[0-9]+)\.0*\Z")
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def digest(value: object) -> str:
    """Return the first 12 hex digits of the sha256 of a JSON-like value, in canonical form."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]


def parse_duration(text: str) -> float:
    """Return the seconds of a time such as ``90s``, ``30m`` or ``1.5h``.

    Raises:
        ValueError: the text has another form, or the time is not above 0.
    """
    number, unit = text.strip()[:-1], text.strip()[-1:]
    try:
        value = float(number) * _UNIT_SECONDS[unit]
    except (ValueError, KeyError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError("a time is a positive number followed by s, m or h, such as 30m")
    return value


def validate_path(path: Path) -> Path:
    """Return the path if a file can have it.

    Raises:
        ValueError: a character or the length is not allowed by file systems.
    """
    try:
        sizes = [len(part.encode("utf-8")) for part in (str(path), *path.parts)]
    except UnicodeEncodeError as error:
        raise ValueError("the path is not valid UTF-8; rename the file or folder") from error
    if "\0" in str(path):
        raise ValueError("the path contains a NUL character")
    if sizes[0] > _MAX_PATH_BYTES or max(sizes[1:], default=0) > _MAX_NAME_BYTES:
        raise ValueError(f"a name in a path has at most {_MAX_NAME_BYTES} bytes; use a shorter one")
    return path


def is_folder(word: str) -> bool:
    """Whether a word of ``--backbones`` is a folder: absolute, or it starts with ``.`` or ``~``."""
    return word.startswith((".", "~")) or Path(word).is_absolute()


def normalize_word(value: str) -> str:
    """Return a label value in lower case, without white space around it and decimals of zero."""
    return _WHOLE_NUMBER.sub(r"\1", value.strip().lower())


def _validate_duration(value: str | None) -> str | None:
    """Return the value unchanged; raise ValueError if it is set and not a time."""
    if value is not None:
        parse_duration(value)
    return value


def _validate_optional_path(path: Path | None) -> Path | None:
    return None if path is None else validate_path(path)


def _validate_lengths(thresholds: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    if len(set(map(len, thresholds.values()))) > 1:
        raise ValueError("the rules have thresholds for different numbers of labels")
    return thresholds


# Of records. Larger numbers in an edited file would overflow in sums and conversions to float.
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Thresholds = Annotated[dict[str, tuple[Number, ...]], AfterValidator(_validate_lengths)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Distribution = Annotated[str, Field(pattern=r"^\S+ \S")]  # name and version
Adaptation = Literal["full", "probe", "lora"]
LongText = Literal["head", "head-tail", "windows"]
Objective = Literal["headline", "micro_f1", "subset_accuracy", "micro_average_precision"]
SearchCost = Literal["gap", "seconds"]
OptionalPath = Annotated[Path | None, AfterValidator(_validate_optional_path)]
OptionalDuration = Annotated[str | None, AfterValidator(_validate_duration)]


class FrozenModel(BaseModel):
    """Base of settings and records: immutable, no unknown keys, no NaN.

    Errors hold no input, which may be the comments of a table.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )


class BaselineSettings(FrozenModel):
    """Base of the settings of a baseline; each field has a default."""


class Preset(FrozenModel):
    """A named recipe. It overrides the plugin's defaults, and users override it."""

    train: dict[str, Any]
    split: dict[str, Any]


class TrainSettings(FrozenModel):
    """How a cell is trained. A plugin sets its own defaults; users override any field."""

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
    long_text: LongText = Field(
        "head",
        description="what is read of longer comments: head: the start; head-tail: the start and "
        "the end; windows: all, with the highest logits of overlapping windows",
    )
    padding: Literal["bucket", "max_length"] = Field(
        "bucket", description="batches of similar length, or everything padded to max_length"
    )
    adaptation: Adaptation = Field(
        "full", description="full: all weights learn; probe: none but the head's start; lora"
    )
    head_init: Literal["probe", "random", "checkpoint"] = Field(
        "probe", description="start of the head: linear probe, random, or the checkpoint's head"
    )
    loss: Literal["bce", "weighted-bce", "focal"] = Field("bce", description="training loss")
    pos_weight_cap: float = Field(10.0, ge=1, description="largest weight in weighted-bce")
    focal_gamma: float = Field(2.0, ge=0, description="focusing exponent of focal")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 if the hardware supports it"
    )
    eval_steps: int = Field(0, ge=0, description="steps between evaluations; 0: after each epoch")
    patience: int = Field(
        0, ge=0, description="evaluations without a higher score before training ends; 0: never"
    )


class SplitSettings(FrozenModel):
    """Which rows are for training, validation and test."""

    split: Literal["random", "stratified", "grouped"] = Field(
        "random", description="how rows are split; grouped keeps a group on one side"
    )
    folds: int = Field(
        1, ge=1, le=100, description="with 2 or more, every row is tested in exactly one fold"
    )
    test_size: float = Field(
        0.2, gt=0, lt=1, description="fraction of all rows for test, with one fold"
    )
    validation_size: float = Field(
        0.05, ge=0, lt=1, description="fraction of the train rows held out to choose thresholds"
    )
    split_seed: int = Field(42, ge=0, lt=2**32, description="random_state of the split")
    split_file: OptionalPath = Field(
        None, description="JSON of the rows in each part: read if it exists, else written"
    )
    test: OptionalPath = Field(
        None, description="table of the official test rows; those of --data are for training"
    )
    valid: OptionalPath = Field(None, description="table of the official validation rows")
    split_column: str | None = Field(
        None, description="column that holds train, validation or test for each row"
    )


def _to_words(value: object) -> object:
    """Split text at commas, and convert numbers to the words that a table would hold."""
    if isinstance(value, str):
        return tuple(word for word in value.split(",") if word.strip())
    if isinstance(value, list | tuple):
        return tuple(str(word) if isinstance(word, int | float) else word for word in value)
    return value


class ColumnSettings(FrozenModel):
    """The columns of the table; those that are not named are detected.

    Attributes:
        true_values: words that mean 1 in a label column, in addition to `TRUE_WORDS`.
        false_values: words that mean 0, in addition to `FALSE_WORDS`.
        id_column: "none": ids are row numbers.
        labels: label columns, or, with ``labels_column``, those of its labels that are used.
        labels_column: column of label sets.
        labels_separator: text between the labels of a set; unset: found in the cells.
        label_names: names of labels that are integers, from 0.
        positive_from: smallest number that means 1; smaller numbers mean 0.
        unlabelled: values that mean "not labelled", left out of loss and scores; "blank" stands for
            an empty cell.
        drop_unlabelled: leave out rows with such a value.
        drop_empty: leave out rows without a text.
    """

    text_column: str | None = None
    id_column: str | None = None
    group_column: str | None = None
    labels: tuple[str, ...] = ()
    labels_column: str | None = None
    labels_separator: str | None = Field(None, min_length=1)
    label_names: tuple[str, ...] = ()
    positive_from: float | None = Field(None, gt=0)
    true_values: Annotated[tuple[str, ...], BeforeValidator(_to_words)] = ()
    false_values: Annotated[tuple[str, ...], BeforeValidator(_to_words)] = ()
    unlabelled: Annotated[tuple[str, ...], BeforeValidator(_to_words)] = ()
    drop_unlabelled: bool = False
    drop_empty: bool = False
    encoding: str = "utf-8"

    @field_validator("true_values", "false_values")
    @classmethod
    def _validate_words(cls, words: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Refuse blanks, words that always have the opposite meaning, and words in both lists."""
        is_true = info.field_name == "true_values"
        opposites = FALSE_WORDS if is_true else TRUE_WORDS
        true_values = () if is_true else info.data.get("true_values", ())
        true_words = set(map(normalize_word, true_values))
        for word in map(normalize_word, words):
            quoted = safe_quote(word)
            if not word:
                raise ValueError("a blank is never a label; fill in the table's empty cells")
            if any("\ud800" <= character <= "\udfff" for character in word):
                raise ValueError(f"{quoted} is not valid text: it holds half of a surrogate pair")
            if word in opposites:
                meaning = "no" if is_true else "yes"
                raise ValueError(f"{quoted} always means {meaning}; leave it out")
            if word in true_words:
                raise ValueError(f"{quoted} is among true_values, too; leave it out of one")
        return words

    @field_validator("unlabelled")
    @classmethod
    def _validate_unlabelled(cls, words: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Refuse words that also mean 0 or 1."""
        mapped = (*info.data.get("true_values", ()), *info.data.get("false_values", ()))
        labels = TRUE_WORDS | FALSE_WORDS | set(map(normalize_word, mapped))
        for word in map(normalize_word, words):
            if word in labels:
                raise ValueError(f"{safe_quote(word)} is a label, too; leave it out")
        return words


def _to_source(value: object) -> TableSource:
    """Convert to a source of a table, with valid paths."""
    source = to_source(value)
    for path in source_paths(source):
        validate_path(path)
    return source


def _to_tuple(value: object) -> object:
    """Wrap a single word in a tuple."""
    return (value,) if isinstance(value, str) else value


def _validate_sizes(sizes: tuple[float, ...]) -> tuple[float, ...]:
    if not {*sizes} - {1} or len({*sizes}) < len(sizes):
        raise ValueError("name at least one size below 1, and each size once")
    return sizes


class RunSettings(FrozenModel):
    """All settings of a run. ``train`` and ``split`` hold only the fields that the user set."""

    data: Annotated[TableSource, AfterValidator(_to_source)] = Field(
        None, exclude=True, repr=False, description="table of comments; unset: the synthetic sample"
    )
    columns: ColumnSettings = ColumnSettings()
    backbones: tuple[str, ...] = ("bert", "distilbert")
    baselines: tuple[str, ...] | None = Field(
        None, description="baselines to compare; unset: all but those on request"
    )
    adaptation: Annotated[tuple[Adaptation, ...] | None, BeforeValidator(_to_words)] = Field(
        None,
        min_length=1,
        description="of each backbone: full, probe and lora; unset: full, and probe unless "
        "baselines are named",
    )
    seeds: int = Field(1, ge=1, le=10_000, description="cells of each backbone: seeds 0, 1, ...")
    weights: Annotated[tuple[str, ...], BeforeValidator(_to_tuple)] = ("auto",)
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    plugins: tuple[str, ...] | None = Field(
        None, description="third-party plugins that may load; unset: all installed"
    )
    workers: int | None = Field(
        None, ge=1, le=1000, description="processes that compute cells; unset: chosen automatically"
    )
    executor: Literal["local", "ray"] = Field(
        "local", description="system that computes cells; results are the same"
    )
    ray_address: str | None = Field(
        None, description="of a Ray cluster; unset: Ray is started on this machine"
    )
    cpus_per_cell: int | None = Field(
        None, ge=1, description="threads of a cell; unset: the cores are shared among workers"
    )
    gpus_per_cell: float | None = Field(
        None, gt=0, le=1, description="fraction of a GPU for each cell on CUDA; unset: all of it"
    )
    save_models: Literal["best", "all", "none"] = Field(
        "best", description="best: of each backbone the model that is best on validation rows"
    )
    cell_timeout: OptionalDuration = Field(
        None, description="time limit of a cell, such as 90s, 30m or 2h; unset: no limit"
    )
    results: Annotated[Path, AfterValidator(validate_path)] = Path("results")
    preset: str | None = None
    train: dict[str, Any] = {}
    split: dict[str, Any] = {}
    backbone: dict[str, dict[str, Any]] = Field(
        {}, description="training settings of single backbones"
    )
    baseline: dict[str, dict[str, Any]] = Field({}, description="settings of single baselines")
    checkpoint_every: Annotated[str, AfterValidator(_validate_duration)] = Field(
        "10m", description="training time between checkpoints, from which a cell resumes"
    )
    trackers: tuple[str, ...] = Field(
        (), description="trackers to log to: tensorboard, mlflow, or a plugin's"
    )
    tuned: bool = Field(False, description="add a row for each backbone with its tuned settings")
    resume: bool = Field(False, description="fail unless results of this table and split exist")
    quoted: OptionalPath = Field(
        None, description="TOML file of scores of publications, for rows without a rank"
    )
    sizes: Annotated[
        tuple[Fraction, ...], BeforeValidator(_to_words), AfterValidator(_validate_sizes)
    ] = Field((0.25, 0.5, 1.0), description="fractions of the train rows; only curve reads them")
    tune: dict[str, Any] = Field({}, description="fields of TuneSettings; only tune reads them")

    @field_validator("ray_address")
    @classmethod
    def _validate_address(cls, value: str | None) -> str | None:
        if value is not None and not _ADDRESS.fullmatch(value):
            raise ValueError(
                "an address is auto or HOST:PORT; a command joins the cluster from one of its nodes"
            )
        return value


class TuneSettings(FrozenModel):
    """How hyperparameters are searched, the same for each backbone."""

    trials: int | None = Field(
        None,
        ge=1,
        description="finished trials of each backbone, over all workers and restarts; 20 if unset",
    )
    budget: OptionalDuration = Field(
        None, description="training time of each backbone's trials, such as 90s, 30m or 2h"
    )
    metric: Objective = Field(
        "headline",
        description="metric to maximize on inner validation rows; headline is the mean of "
        "micro-F1 and subset accuracy",
    )
    objectives: Annotated[tuple[Literal["metric", SearchCost], ...], BeforeValidator(_to_words)] = (
        Field(
            ("metric",),
            description="metric, then costs to minimize: gap (train minus inner validation score), "
            "seconds (training time)",
        )
    )
    pick: int | None = Field(
        None,
        ge=0,
        description="trial on the Pareto front of several objectives whose settings are the "
        "result; unset: the best finalist",
    )
    sampler: Literal["tpe", "random", "grid"] = Field("tpe", description="how trials are sampled")
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median", description="how bad trials are ended early; none with several objectives"
    )
    inner_folds: int = Field(
        1, ge=1, le=INNER_FOLDS, description="inner folds over which a trial's score is averaged"
    )
    finalists: int = Field(
        3, ge=1, description="best trials to train again, in addition to the default settings"
    )
    finalist_seeds: int = Field(3, ge=1, description="fresh seeds for each of them")
    finalist_folds: int = Field(
        INNER_FOLDS, ge=1, le=INNER_FOLDS, description="inner folds for each of them, the last ones"
    )
    tune_seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampler and of all trials")
    storage: str | None = Field(
        None, description="SQLAlchemy URL of a shared study; unset: SQLite in the results folder"
    )
    space: dict[str, Any] = Field({}, description="hyperparameter -> range or choices")

    @field_validator("objectives")
    @classmethod
    def _validate_objectives(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names[:1] != ("metric",) or len(set(names)) < len(names):
            raise ValueError("write metric first, then gap, seconds or both")
        return names

    @property
    def costs(self) -> tuple[SearchCost, ...]:
        """The objectives that are minimized."""
        return tuple(name for name in self.objectives if name != "metric")

    @property
    def trial_limit(self) -> int | None:
        """Number of finished trials after which the search ends; None: only the budget ends it."""
        if self.trials is None and self.budget is None:
            return DEFAULT_TRIALS
        return self.trials
