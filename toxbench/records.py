"""Records that are stored and passed to plugins: cells, epochs, trials, audits, measured speed.

They are plain, immutable models. They depend on no code of the stages that fill them.
"""

from collections.abc import Sequence
from contextlib import suppress
from statistics import median
from typing import Any, Literal, Self

from pydantic import Field, FiniteFloat, ValidationError, field_validator
from pydantic_core import from_json

from toxbench.errors import NewerVersionError
from toxbench.settings import (
    Adaptation,
    Count,
    Distribution,
    FrozenModel,
    Number,
    Objective,
    SearchCost,
    Thresholds,
    TrainSettings,
)

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
FIXED_RULE = "0.5"  # the thresholds rule that every scored cell has
Scores = dict[str, Number | None]  # metric name -> value; None if it is undefined


class StoredRecord(FrozenModel):
    """Base of the records that have a file each. The file holds the version of its schema.

    A change that this code would misread raises the default of ``schema_version`` in its class.
    """

    schema_version: int = Field(1, ge=0)

    @field_validator("schema_version")
    @classmethod
    def _is_supported(cls, version: int) -> int:
        if version > cls._supported_version():
            raise ValueError(f"schema {version} is newer than {cls._supported_version()}")
        return version

    @classmethod
    def from_json(cls, text: str | bytes, source: object) -> Self:
        """Parse a stored record; ``source`` is its file, for the message.

        Raises:
            NewerVersionError: a newer toxbench wrote it.
            ValueError: it is not a valid record.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            with suppress(ValueError):  # text that is not JSON has no version
                refuse_newer(from_json(text), source, cls._supported_version())
            raise

    @classmethod
    def from_content(cls, content: object, source: object) -> Self:
        """Build a record from parsed content, such as TOML; otherwise like `from_json`."""
        refuse_newer(content, source, cls._supported_version())
        return cls.model_validate(content)

    @classmethod
    def _supported_version(cls) -> int:
        version: int = cls.model_fields["schema_version"].default
        return version


def refuse_newer(content: object, source: object, supported: int = 1) -> None:
    """Refuse parsed content of a newer ``schema_version``; ignore all other errors.

    Raises:
        NewerVersionError: the version is higher.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > supported:
        raise NewerVersionError(
            f"{source} was written by a newer toxbench (schema {version}, this one reads "
            f"{supported}) and is left as it is; upgrade: pip install --upgrade toxbench"
        )


class CellKey(FrozenModel):
    """Identity of a cell: within a protocol, each key is trained once."""

    candidate: str = Field(description="backbone or baseline name")
    digest: str = Field(description="hash of the weights and settings, 12 hex digits")
    fold: Count = 0
    seed: Count = 0

    @property
    def stem(self) -> str:
        """File name without its suffix."""
        return f"{self.candidate}-{self.digest}-fold{self.fold}-seed{self.seed}"


class RunRecord(FrozenModel):
    """The table and protocol of a run, for trackers. It holds no comment and no path."""

    table: str = Field(description="the table's name")
    fingerprint: str = Field(description="of the protocol")
    synthetic: bool = Field(description="the table is the built-in sample")
    labels: tuple[str, ...]
    folds: Count
    seeds: Count = Field(description="of each backbone")
    exploratory: bool = Field(description="too few seeds to rank backbones by")


class WeightsRecord(FrozenModel):
    """Where a backbone's initial weights came from. It holds no local path."""

    source: Literal["hub", "local", "stand-in", "scratch"]
    label: str = Field(description="text to print, e.g. 'stand-in: all-MiniLM-L6-v2'")
    identity: str = Field(description="hash of the files' content, for the Hub after the commit")


class EpochRecord(FrozenModel):
    """Loss and scores of one epoch; scores are of the validation rows at threshold 0.5.

    With ``eval_steps`` it covers that many steps instead, regardless of where epochs end.
    """

    epoch: Count = Field(description="from 1; with eval_steps, the number of the evaluation")
    train_loss: Number = Field(description="mean over the epoch's comments, in training mode")
    validation: Scores = Field(description="empty if there are no validation rows")
    seconds: Number = Field(description="training only")
    step: Count | None = Field(
        None, description="with eval_steps: training steps so far; None: a complete epoch"
    )
    comments: Count | None = Field(
        None, description="with eval_steps: comments trained on; None: all train rows"
    )


class TuningRecord(FrozenModel):
    """The search that a tuned cell's settings came from. Scores are of inner validation rows."""

    study: str
    trials: Count = Field(description="all trials, including pruned and failed ones")
    pruned_trials: Count
    failed_trials: Count
    finalists: Count = Field(description="configurations that were trained again with fresh seeds")
    metric: Objective = Field(description="that the search maximized")
    score: Number = Field(description="of the winner, with fresh seeds")
    default_score: Number | None = Field(  # TOML has no null, so it has a default
        None,
        description="of the default settings with the same fresh seeds on the same folds; "
        "None if they failed",
    )
    default_won: bool = Field(
        description="no other finalist scored higher: the settings are the default ones"
    )
    picked_trial: Count | None = Field(
        None,
        description="trial on the Pareto front that the user picked; None: the best finalist won",
    )

    @property
    def promised_gain(self) -> float | None:
        """Score of the winner minus score of the default settings, on inner validation rows."""
        return None if self.default_score is None else self.score - self.default_score


class TunedSettings(StoredRecord):
    """The settings that a search found for one backbone, and the protocol they are valid for."""

    backbone: str
    protocol: str = Field(description="fingerprint")
    fold: Count = Field(0, description="of the protocol; its test rows were not used")
    finished_at: str = Field(description="UTC, ISO 8601")
    weights: WeightsRecord
    tuning: TuningRecord
    train: TrainSettings
    thresholds: Thresholds = Field(
        description="rule -> threshold per label, from inner validation rows"
    )


class TrialRecord(StoredRecord):
    """One trial of a study: trained once, committed once, never changed.

    It holds everything needed to rebuild the study's database.
    """

    study: str
    uid: str = ""
    number: Count = Field(description="counted from 0, in the order in which trials began")
    plan_index: Count = Field(
        0, description="index of the planned trial, from 0; a replacement of a lost trial keeps it"
    )
    state: Literal["complete", "pruned", "failed"]
    reason: str = Field(description="why it was pruned or failed, else empty")
    is_default: bool = Field(description="a trial of the default settings, which are not sampled")
    params: dict[str, str | Count | FiniteFloat]
    distributions: dict[str, str] = Field(description="of the params, in Optuna's JSON")
    system_attributes: dict[str, Any] = Field(
        {}, description="Optuna's system attributes, written by its sampler and pruner"
    )
    settings: TrainSettings
    seed: Count
    folds: tuple[Count, ...] = Field(description="inner folds, in the order of training")
    metric: Objective = Field(description="of the scores")
    value: Number | None = Field(description="mean of the scores; None unless complete")
    costs: dict[SearchCost, Number] = Field(
        {},
        description="objectives that are minimized, as means over the inner folds; empty if there "
        "are none, or unless complete",
    )
    scores: tuple[Number, ...] = Field(description="on the validation rows of each inner fold")
    epoch_scores: dict[Count, Number] = Field(description="epoch -> score on the first fold")
    step_scores: dict[Count, Number] = Field(
        {}, description="quarter of the training -> score that the pruner compared"
    )
    epochs: Count = Field(description="epochs trained, over all folds")
    seconds: Number = Field(description="training and validation")
    thresholds: Thresholds = Field(
        description="rule -> threshold per label, from the inner validation rows"
    )
    worker: str = Field("", description="random id of the process that trained it")
    finished_at: str = Field(description="UTC, ISO 8601")

    @property
    def objective_values(self) -> list[float] | None:
        """The value, then the costs; None unless complete."""
        return None if self.value is None else [self.value, *self.costs.values()]


class SharedGroups(FrozenModel):
    """Test rows whose group also has train or validation rows."""

    column: str = Field(description="the table's column of groups")
    groups: Count = Field(description="number of groups on both sides of a fold")
    rows: tuple[Count, ...] = Field(description="test rows in such a group")


class Implication(FrozenModel):
    """A label whose rows (nearly) all have another label as well."""

    label: str
    implied_label: str
    positives: Count = Field(description="rows with the first label")
    share: Number = Field(description="share of those rows with the implied label, 0 to 1")


class Audit(FrozenModel):
    """Leaks of a split and oddities of its labels, over all folds. It holds no comment.

    Rows are counted from 0 in the order of the table. A pair is a test row and the first row of
    the same fold's train or validation part that it copies.
    """

    test_rows: Count
    leaked_rows: Count = Field(description="test rows with a leak of any kind")
    exact_copies: tuple[tuple[Count, Count], ...] = Field(
        description="pairs whose texts are equal apart from case, white space and Unicode form"
    )
    near_copies: tuple[tuple[Count, Count], ...] = Field(
        description="pairs whose texts are nearly equal, without the exact copies"
    )
    near_copy_definition: str = Field(description="what nearly equal means, in words and numbers")
    shared_groups: SharedGroups | None = Field(
        description="None: the table has no column of groups"
    )
    label_conflicts: tuple[tuple[Count, ...], ...] = Field(
        description="for each text whose rows have different labels: all its rows"
    )
    implications: tuple[Implication, ...] = Field(description="the strongest, at most 1,000")
    implication_count: Count
    never_positive_labels: tuple[str, ...] = Field(description="labels that no row has")
    always_positive_labels: tuple[str, ...] = Field(description="labels that every row has")


class Environment(FrozenModel):
    """The machine and the code that computed a cell."""

    device: str
    device_name: str
    precision: Literal["bf16", "fp32"]
    threads: Count
    versions: dict[str, str]
    commit: str | None = Field(description="git HEAD of the working folder, if it is a checkout")


class Cost(FrozenModel):
    """Time and memory that a cell took."""

    train_seconds: Number
    evaluation_seconds: Number
    comments_per_second: Number | None = Field(description="in training, over all epochs")
    peak_memory_bytes: Count | None = Field(
        description="peak while the cell ran: of the GPU's tensors, else of the process"
    )


class LabelScores(FrozenModel):
    """Scores of one label on the test rows, for one thresholds rule."""

    label: str
    support: Count = Field(description="positive test rows")
    threshold: Number
    precision: Number
    recall: Number
    f1: Number
    average_precision: Number | None
    roc_auc: Number | None
    prevalence: Number = Field(description="share of positive test rows")
    mcc: Number = Field(description="Matthews correlation coefficient")
    brier: Number
    expected_calibration_error: Number


class Calibration(FrozenModel):
    """Makes probabilities honest: ``sigmoid(logit / temperature + shift)``."""

    temperature: Number = Field(1.0, gt=0)
    shift: Number = 0.0


class CellRecord(StoredRecord):
    """One candidate x fold x seed: trained once, stored once, never changed."""

    key: CellKey
    kind: Literal["backbone", "baseline", "ensemble"] = Field(
        description="an ensemble is an average of stored cells, and is never stored"
    )
    stochastic: bool = Field(description="whether the result depends on the seed")
    distribution: Distribution = Field(
        description="name and version of the plugin's distribution, and a hash of its files"
    )
    fingerprint: str = Field(description="of the protocol that it was measured with")
    weights: WeightsRecord | None
    parameters: Count | None
    settings: TrainSettings | None
    baseline_settings: dict[str, Any] = Field(
        {}, description="of a baseline, without the setting that names its weights"
    )
    tuning: TuningRecord | None = Field(None, description="None: the settings were not searched")
    environment: Environment
    cost: Cost
    epochs: tuple[EpochRecord, ...]
    truncated_share: Number | None = Field(description="share of all comments cut at max_length")
    cut_token_share: Number | None = Field(
        None, description="share of all tokens cut at max_length"
    )
    micro_batch: Count | None = Field(
        None,
        description="comments in a forward pass, if memory did not allow batch_size; gradients of "
        "several passes are then accumulated for a step",
    )
    fitted_rows: Count | None = Field(
        None,
        description="rows in the random sample that a baseline was fitted on; None: all train rows",
    )
    thresholds: Thresholds = Field(
        description="rule -> threshold per label, for probabilities that are not calibrated"
    )
    calibration: Calibration = Field(
        Calibration(), description="fitted on the validation rows; scores do not use it"
    )
    versions: dict[str, Count] = Field(
        description="versions of the metrics and threshold rules that the cell was scored with"
    )
    metrics: dict[str, dict[Part, Scores]] = Field(description="rule -> part -> metric -> value")
    per_label: dict[str, tuple[LabelScores, ...]] = Field(description="rule -> labels, on test")
    has_constant_predictions: bool = Field(
        description="every test row has the same predicted labels at threshold 0.5"
    )

    @property
    def adaptation(self) -> Adaptation:
        """Which weights learned; full for baselines."""
        return self.settings.adaptation if self.settings else "full"

    @property
    def all_settings(self) -> dict[str, Any]:
        """The settings of the training, or of the baseline."""
        return self.settings.model_dump() if self.settings else self.baseline_settings

    @property
    def title(self) -> str:
        """The candidate's name, and the adaptation if it is not full."""
        suffix = f" [{self.adaptation}]" if self.adaptation != "full" else ""
        return f"{self.key.candidate}{suffix}"


class FailureRecord(StoredRecord):
    """A cell that failed. It is deleted once the cell has a result."""

    key: CellKey
    kind: str = Field(description="diverged, or the name of the error's class")
    reason: str = Field(description="one line, without local names and secrets")
    failed_at: str = Field(description="UTC, ISO 8601")


class Spread(FrozenModel):
    """Median and range of repeated measurements."""

    median: Number
    low: Number
    high: Number

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize at least one value."""
        return cls(median=median(values), low=min(values), high=max(values))


class SpeedRecord(FrozenModel):
    """Measured speed of one backbone on one device. It holds no comment."""

    backbone: str
    weights: str = Field(description="text to print, as `WeightsRecord.label`")
    source: Literal["hub", "local", "stand-in", "scratch"]
    body_parameters: Count = Field(description="without embeddings and new head")
    device: str
    device_name: str
    precision: Literal["bf16", "fp32"]
    threads: Count
    versions: dict[str, str]
    measured_at: str = Field(description="UTC, ISO 8601")
    table: str = Field(description="the table's name")
    batch_size: Count
    max_length: Count
    epochs: Count = Field(description="in each timed run")
    repeats: Count
    rows: Count = Field(description="train rows, which are an epoch")
    tokens: Count = Field(description="of the train rows, without padding")
    seconds_per_epoch: Spread = Field(description="a timed run's seconds / its epochs")
    comments_per_second: Spread
    tokens_per_second: Spread = Field(description="tokens / seconds_per_epoch")
    evaluation_comments_per_second: Spread = Field(description="probabilities of all rows")
    peak_operations_per_second: Number = Field(
        description="of a matrix product in the same precision"
    )
    share_of_peak: Spread = Field(description="6 x body_parameters x tokens_per_second / the peak")
    peak_memory_bytes: Count | None = Field(
        description="highest while training: of the GPU's tensors, else of the process"
    )
