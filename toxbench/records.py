"""What is stored of a trained cell: plain, frozen records that outlive the code that made them."""

from collections.abc import Sequence
from contextlib import suppress
from statistics import median
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_core import from_json

from toxbench.errors import NewerError
from toxbench.settings import Frozen, TrainSettings

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
Scores = dict[str, float | None]  # metric name -> value; None where it is undefined


class Stored(Frozen):
    """Base of what has a file of its own, and says in it which schema it is of.

    A new field has a default, so that older files are read. What older code would misread raises
    the default of ``schema_version`` in its class.
    """

    schema_version: int = Field(1, ge=0)

    @field_validator("schema_version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version > cls._known():
            raise ValueError(f"schema {version} is newer than {cls._known()}")
        return version

    @classmethod
    def read(cls, text: str | bytes, where: object) -> Self:
        """Read what was stored as JSON.

        Args:
            text: of this version or an older one.
            where: the file, for the message.

        Raises:
            NewerError: a newer toxbench wrote it.
            ValueError: it is not as it was written.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            with suppress(ValueError):  # what is no JSON is of no version
                refuse_newer(from_json(text), where, cls._known())
            raise

    @classmethod
    def take(cls, content: object, where: object) -> Self:
        """Read what was stored in another way than JSON; otherwise as `read`."""
        refuse_newer(content, where, cls._known())
        return cls.model_validate(content)

    @classmethod
    def _known(cls) -> int:
        known: int = cls.model_fields["schema_version"].default
        return known


def refuse_newer(content: object, where: object, known: int = 1) -> None:
    """Refuse content whose ``schema_version`` is above the known one, and nothing else.

    Raises:
        NewerError: saying what to do.
    """
    found = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(found, int) and found > known:
        raise NewerError(
            f"{where} was written by a newer toxbench (schema {found}, this one reads {known}) and "
            "is left as it is; upgrade: pip install --upgrade toxbench"
        )


class CellKey(Frozen):
    """What makes a cell itself: the same key is never trained twice in one protocol."""

    candidate: str = Field(description="backbone or baseline name")
    digest: str = Field(description="of everything else that was chosen: weights and settings")
    fold: int = 0
    seed: int = 0

    @property
    def stem(self) -> str:
        """File name without its suffix."""
        return f"{self.candidate}-{self.digest}-fold{self.fold}-seed{self.seed}"


class RunRecord(Frozen):
    """What a run is about, before its first cell. It holds no comment and no path."""

    table: str = Field(description="the table's name")
    fingerprint: str = Field(description="of the protocol")
    synthetic: bool = Field(description="the table is the built-in sample")
    labels: tuple[str, ...]
    folds: int
    seeds: int = Field(description="of each backbone")
    exploratory: bool = Field(description="too few seeds to rank backbones by")


class WeightsRecord(Frozen):
    """Where a backbone started from, as it may be printed and stored (no local path)."""

    source: Literal["hub", "local", "stand-in"]
    label: str = Field(description="for people, e.g. 'stand-in: all-MiniLM-L6-v2'")
    identity: str = Field(description="commit of the Hub, or sha256 of the weights file")


class EpochRecord(Frozen):
    """One epoch as it went; scores are of the validation rows at threshold 0.5.

    With ``eval_steps`` it is one stretch of so many steps, wherever epochs begin and end.
    """

    epoch: int = Field(description="counted from 1; with eval_steps, the number of the stretch")
    train_loss: float = Field(description="mean over the epoch's comments, in training mode")
    validation: Scores = Field(description="empty when there are no validation rows")
    seconds: float = Field(description="training only")
    step: int | None = Field(
        None, description="with eval_steps: steps of the training until here; None: a whole epoch"
    )
    comments: int | None = Field(
        None, description="with eval_steps: trained on in the stretch; None: all train rows"
    )


class TuningRecord(Frozen):
    """Where the settings of a tuned cell came from. Scores are of inner validation rows."""

    study: str
    trials: int = Field(description="finished, pruned and failed ones included")
    pruned: int
    failed: int
    finalists: int = Field(description="configurations that were trained again with fresh seeds")
    average_precision: float = Field(description="micro, of the winner, with fresh seeds")
    default_average_precision: float | None = Field(
        None,
        description="micro, of the default settings with the same fresh seeds on the same folds; "
        "None where they failed. In records without default_won it is their score in the search",
    )
    default_won: bool | None = Field(
        None, description="no other finalist scored higher: the settings are the default ones"
    )


class TunedSettings(Stored):
    """What a search found for one backbone, and what it holds for."""

    backbone: str
    protocol: str = Field(description="fingerprint")
    finished: str = Field(description="UTC, ISO 8601")
    weights: WeightsRecord
    tuning: TuningRecord
    train: TrainSettings
    thresholds: dict[str, tuple[float, ...]] = Field(
        description="rule -> threshold per label, from inner validation rows"
    )


class TrialRecord(Stored):
    """One trial of a study: trained once, committed once, never changed.

    It holds all that is needed to build the study's database again.
    """

    study: str
    uid: str = ""
    number: int = Field(description="counted from 0, in the order in which trials began")
    slot: int = Field(
        0, description="which of the wanted trials it is; a lost one's is taken again"
    )
    state: Literal["complete", "pruned", "failed"]
    reason: str = Field(description="why it was pruned or failed, else empty")
    default: bool = Field(description="of the default settings, which nothing was drawn for")
    params: dict[str, str | int | float]
    distributions: dict[str, str] = Field(description="of the params, as optuna writes them")
    attributes: dict[str, Any] = Field({}, description="what sampler and pruner noted, for optuna")
    settings: TrainSettings
    seed: int
    folds: tuple[int, ...] = Field(description="inner folds, in the order of training")
    value: float | None = Field(description="mean of the scores; None unless complete")
    scores: tuple[float, ...] = Field(description="micro average precision on each inner fold")
    epoch_scores: dict[int, float] = Field(description="epoch -> score on the first fold")
    step_scores: dict[int, float] = Field(
        {}, description="share of the training in quarters -> score that the pruner saw"
    )
    epochs: int = Field(description="epochs trained, over all folds")
    seconds: float = Field(description="training and validation")
    thresholds: dict[str, tuple[float, ...]] = Field(
        description="rule -> threshold per label, from the inner validation rows"
    )
    worker: str = Field("", description="which process trained it; random")
    finished: str = Field(description="UTC, ISO 8601")


class SharedGroups(Frozen):
    """Test rows whose group has train or validation rows as well."""

    column: str = Field(description="the table's column of groups")
    groups: int = Field(description="different groups on both sides of a fold")
    rows: tuple[int, ...] = Field(description="test rows in such a group")


class Implication(Frozen):
    """A label whose rows (nearly) all have another label as well."""

    label: str
    implied: str
    positives: int = Field(description="rows with the first label")
    share: float = Field(description="of those rows, how many have the implied label; 0 to 1")


class Audit(Frozen):
    """What a split leaks and what is odd about labels, over all folds. It holds no comment.

    Rows are counted from 0 in the order of the table; a pair is a test row and the first row of
    the same fold's train or validation part that it copies.
    """

    tested: int = Field(description="test rows")
    affected: int = Field(description="test rows with a leak of any kind")
    exact: tuple[tuple[int, int], ...] = Field(
        description="pairs whose texts are equal apart from case, white space and Unicode form"
    )
    near: tuple[tuple[int, int], ...] = Field(description="pairs of other rows, nearly equal")
    near_definition: str = Field(description="what nearly equal means, in words and numbers")
    shared: SharedGroups | None = Field(description="None: the table has no column of groups")
    conflicts: tuple[tuple[int, ...], ...] = Field(
        description="all rows of each text that has rows with different labels"
    )
    implications: tuple[Implication, ...]
    never: tuple[str, ...] = Field(description="labels that no row has")
    always: tuple[str, ...] = Field(description="labels that every row has")


class Environment(Frozen):
    """The machine and the code that made a cell."""

    device: str
    device_name: str
    precision: Literal["bf16", "fp32"]
    threads: int
    versions: dict[str, str]
    commit: str | None = Field(description="git HEAD of the working folder, if it is a checkout")


class Cost(Frozen):
    """What a cell cost."""

    train_seconds: float
    evaluation_seconds: float
    comments_per_second: float | None = Field(description="train comments x epochs / train_seconds")
    peak_memory_bytes: int | None = Field(
        description="peak while the cell ran: of the GPU's tensors, else of the process"
    )


class LabelScores(Frozen):
    """One label on the test rows, for one thresholds rule."""

    label: str
    support: int = Field(description="positive test rows")
    threshold: float
    precision: float
    recall: float
    f1: float
    average_precision: float | None
    roc_auc: float | None
    # None in cells that were stored before these were computed.
    prevalence: float | None = Field(None, description="share of positive test rows")
    mcc: float | None = None
    brier: float | None = None
    expected_calibration_error: float | None = None


class CellRecord(Stored):
    """One candidate x fold x seed: trained once, stored once, never changed."""

    key: CellKey
    kind: Literal["backbone", "baseline"]
    distribution: str = Field(description="name and version of the plugin's distribution")
    fingerprint: str = Field(description="of the protocol that it was measured with")
    weights: WeightsRecord | None
    parameters: int | None
    settings: TrainSettings | None
    tuning: TuningRecord | None = Field(None, description="None: the settings were not searched")
    environment: Environment
    cost: Cost
    epochs: tuple[EpochRecord, ...]
    best_epoch: int | None = Field(description="the epoch whose weights were scored")
    truncated: float | None = Field(description="share of all comments cut at max_length")
    micro_batch: int | None = Field(
        None,
        description="comments in a forward pass, where memory did not allow batch_size; "
        "more passes made the same step",
    )
    fitted_rows: int | None = Field(
        None,
        description="train rows in the random sample that a baseline was fitted on, where it does "
        "not get all of them",
    )
    thresholds: dict[str, tuple[float, ...]] = Field(description="rule -> threshold per label")
    versions: dict[str, int] = Field(
        description="of the metrics and the rules for thresholds, with which the cell was scored"
    )
    metrics: dict[str, dict[Part, Scores]] = Field(description="rule -> part -> metric -> value")
    per_label: dict[str, tuple[LabelScores, ...]] = Field(description="rule -> labels, on test")
    constant: bool = Field(description="the same prediction for every test row, at 0.5")


class FailureRecord(Stored):
    """A cell that has no result, kept until it has one."""

    key: CellKey
    kind: str = Field(description="diverged, or the name of the error's class")
    reason: str = Field(description="one line, without local names and secrets")
    finished: str = Field(description="UTC, ISO 8601")


class Spread(Frozen):
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up at least one value."""
        return cls(median=median(values), low=min(values), high=max(values))


class SpeedRecord(Frozen):
    """How fast one backbone is trained and scored on one device. It holds no comment."""

    backbone: str
    weights: str = Field(description="for people")
    source: Literal["hub", "local", "stand-in"]
    body_parameters: int = Field(description="without embeddings and new head")
    device: str
    device_name: str
    precision: Literal["bf16", "fp32"]
    threads: int
    versions: dict[str, str]
    measured: str = Field(description="UTC, ISO 8601")
    data: str = Field(description="the table's name")
    batch_size: int
    max_length: int
    epochs: int = Field(description="in each timed run")
    repeats: int
    rows: int = Field(description="train rows, which are an epoch")
    tokens: int = Field(description="of the train rows, padding not counted")
    seconds_an_epoch: Spread = Field(description="a timed run's seconds / its epochs")
    comments_per_second: Spread
    tokens_per_second: Spread = Field(description="tokens / seconds_an_epoch")
    evaluation_comments_per_second: Spread = Field(description="probabilities of all rows")
    peak_operations_per_second: float = Field(description="of a matrix product in the precision")
    share_of_peak: Spread = Field(description="6 x body_parameters x tokens_per_second / the peak")
    peak_memory_bytes: int = Field(
        description="highest while training: of the GPU's tensors, else of the process"
    )
