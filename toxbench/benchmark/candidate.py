"""What is compared: a backbone with weights and settings, or a baseline."""

from dataclasses import dataclass

from toxbench.plugin.backbone import Backbone
from toxbench.plugin.baseline import Baseline
from toxbench.records import CellKey, TunedSettings
from toxbench.settings import TrainSettings, digest
from toxbench.training.weights import Weights


@dataclass(frozen=True, kw_only=True)
class BackboneCandidate:
    """A backbone, what it starts from and how it is trained."""

    backbone: Backbone
    distribution: str
    plugin: str | None = None  # that must be loaded for it; None: toxbench's own
    weights: Weights
    settings: TrainSettings
    tuned: TunedSettings | None = None

    @property
    def name(self) -> str:
        """The backbone's name."""
        return self.backbone.name

    @property
    def title(self) -> str:
        """The name, and whether the settings were searched."""
        return f"{self.name} (tuned)" if self.tuned else self.name

    def key(self, fold: int, seed: int) -> CellKey:
        """Identify one of its cells: other weights or settings make another candidate."""
        chosen: list[object] = [self.weights.record.identity, self.settings.identity]
        if self.tuned is not None:
            chosen.append(self.tuned.model_dump(mode="json")["thresholds"])
        return CellKey(candidate=self.name, digest=digest(chosen), fold=fold, seed=seed)


@dataclass(frozen=True, kw_only=True)
class BaselineCandidate:
    """A baseline; it has nothing to choose."""

    baseline: Baseline
    distribution: str
    plugin: str | None = None

    @property
    def name(self) -> str:
        """The baseline's name."""
        return self.baseline.name

    @property
    def title(self) -> str:
        """The name."""
        return self.name

    def key(self, fold: int, seed: int) -> CellKey:
        """Identify one of its cells."""
        return CellKey(candidate=self.name, digest=digest(self.distribution), fold=fold, seed=seed)


Candidate = BackboneCandidate | BaselineCandidate
