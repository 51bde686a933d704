"""What is stored of a trained cell: plain, frozen records that outlive the code that made them."""

from typing import Literal

from pydantic import Field

from toxbench.settings import Frozen, TrainSettings

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
Scores = dict[str, float | None]  # metric name -> value; None where it is undefined


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


class WeightsRecord(Frozen):
    """Where a backbone started from, as it may be printed and stored (no local path)."""

    source: Literal["hub", "local", "stand-in"]
    label: str = Field(description="for people, e.g. 'stand-in: all-MiniLM-L6-v2'")
    identity: str = Field(description="commit of the Hub, or sha256 of the weights file")


class EpochRecord(Frozen):
    """One epoch as it went; scores are of the validation rows at threshold 0.5."""

    epoch: int = Field(description="counted from 1")
    train_loss: float = Field(description="mean over the epoch's comments, in training mode")
    validation: Scores = Field(description="empty when there are no validation rows")
    seconds: float = Field(description="training only")


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


class CellRecord(Frozen):
    """One candidate x fold x seed: trained once, stored once, never changed."""

    schema_version: Literal[1] = 1
    key: CellKey
    kind: Literal["backbone", "baseline"]
    distribution: str = Field(description="name and version of the plugin's distribution")
    fingerprint: str = Field(description="of the protocol that it was measured with")
    weights: WeightsRecord | None
    parameters: int | None
    settings: TrainSettings | None
    environment: Environment
    cost: Cost
    epochs: tuple[EpochRecord, ...]
    best_epoch: int | None = Field(description="the epoch whose weights were scored")
    truncated: float | None = Field(description="share of all comments cut at max_length")
    thresholds: dict[str, tuple[float, ...]] = Field(description="rule -> threshold per label")
    metrics: dict[str, dict[Part, Scores]] = Field(description="rule -> part -> metric -> value")
    per_label: dict[str, tuple[LabelScores, ...]] = Field(description="rule -> labels, on test")
    constant: bool = Field(description="the same prediction for every test row, at 0.5")
