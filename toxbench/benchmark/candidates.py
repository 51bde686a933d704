"""What is compared: a backbone with weights and settings, or a baseline."""

from collections.abc import Mapping
from dataclasses import dataclass

from toxbench.errors import PluginError
from toxbench.executors.base import TaskSpec
from toxbench.plugin.contracts import Backbone, Baseline
from toxbench.plugin.registry import Registry
from toxbench.records import CellKey, TunedSettings, WeightsRecord
from toxbench.settings import TrainSettings, digest
from toxbench.training.device import Device
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
        chosen: list[object] = [self.weights.record.identity, self.settings.model_dump(mode="json")]
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


@dataclass(frozen=True)
class CellTask:
    """One cell to compute, and on which kind of device."""

    candidate: Candidate
    key: CellKey
    device: Device

    @property
    def job(self) -> "CellSpec":
        """Describe it to another process."""
        candidate, backbone = self.candidate, None
        if isinstance(candidate, BackboneCandidate):
            backbone = backbone_values(candidate)
        return CellSpec(
            plugin=candidate.plugin,
            reads=candidate.weights.folder if isinstance(candidate, BackboneCandidate) else None,
            uses_gpu=self.device.kind == "cuda",
            keeps_state=backbone is not None,
            key=self.key,
            distribution=candidate.distribution,
            device=self.device,
            backbone=backbone,
        )


@dataclass(frozen=True)
class BackboneSpec:
    """How a backbone's cell is trained; a baseline's is not."""

    record: WeightsRecord
    settings: TrainSettings
    tuned: TunedSettings | None


@dataclass(frozen=True, kw_only=True)
class CellSpec(TaskSpec):
    """A cell as plain values."""

    key: CellKey
    distribution: str
    device: Device
    backbone: BackboneSpec | None

    def task(self, registry: Registry) -> CellTask:
        """Make the cell again with this process's own plugins; see `TaskSpec`."""
        name = self.key.candidate
        candidate: Candidate
        if self.backbone is None:
            baseline = registry.baseline(name).item
            candidate = BaselineCandidate(baseline=baseline, distribution=self.distribution)
        else:
            candidate = backbone_again(name, self, self.distribution, self.backbone, registry)
        return CellTask(candidate, self.key, self.device)


def backbone_values(candidate: BackboneCandidate) -> BackboneSpec:
    """Take out of a candidate what can be sent to another process."""
    return BackboneSpec(candidate.weights.record, candidate.settings, candidate.tuned)


def backbone_again(
    name: str, job: TaskSpec, distribution: str, values: BackboneSpec, registry: Registry
) -> BackboneCandidate:
    """Make a candidate of what was sent from another process.

    Raises:
        PluginError: the backbone is not here, or is another one than there.
    """
    backbone = registry.backbone(name).item
    build = None
    if values.record.source == "stand-in":
        if backbone.stand_in is None:
            raise PluginError(f"{name} has no stand-in in the worker's process")
        build = backbone.stand_in.build
    return BackboneCandidate(
        backbone=backbone,
        distribution=distribution,
        weights=Weights(values.record, job.reads, {}, build=build),
        settings=values.settings,
        tuned=values.tuned,
    )


def cell_tasks(
    cells: "list[tuple[Candidate, CellKey]]", devices: Mapping[str, Device]
) -> "list[CellTask]":
    """Make tasks of cells; ``devices`` is candidate title -> where it computes."""
    return [CellTask(c, key, devices[c.title]) for c, key in cells]
