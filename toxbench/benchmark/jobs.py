"""What a worker process is told: plain values, from which it makes candidates of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toxbench.benchmark.candidate import BackboneCandidate, BaselineCandidate, Candidate
from toxbench.benchmark.cell import Probabilities
from toxbench.benchmark.execution import Failure
from toxbench.data.split import Protocol
from toxbench.errors import PluginError
from toxbench.plugin.registry import Registry
from toxbench.records import CellKey, CellRecord, EpochRecord, TunedSettings, WeightsRecord
from toxbench.settings import TrainSettings
from toxbench.store.models import ModelStore
from toxbench.training.checkpoint import Keeping
from toxbench.training.device import Device
from toxbench.training.weights import Weights


@dataclass(frozen=True)
class Setup:
    """What a worker needs once.

    Attributes:
        protocol: the table and its folds.
        devices: candidate title -> where it computes.
        models: where trained models are written; None: nowhere.
        keeping: where the states of trainings are kept; None: nowhere.
        plugin: of another distribution that the worker loads; None: toxbench's own alone.
    """

    protocol: Protocol
    devices: Mapping[str, Device]
    models: ModelStore | None = None
    keeping: Keeping | None = None
    plugin: str | None = None


@dataclass(frozen=True)
class Leave:
    """The worker is to keep the state of what it trains, and to end."""


@dataclass(frozen=True)
class Job:
    """One cell to compute. A plugin's own objects need not be pickled: they are found by name."""

    key: CellKey
    distribution: str
    trained: "Trained | None"


@dataclass(frozen=True)
class Trained:
    """How a backbone's cell is trained; a baseline's is not."""

    record: WeightsRecord
    folder: Path | None
    settings: TrainSettings
    tuned: TunedSettings | None


@dataclass(frozen=True)
class Ready:
    """The worker has imported what it needs."""


@dataclass(frozen=True)
class Broken:
    """No cell can be computed any more: the disk fails."""

    message: str


Report = Ready | EpochRecord | tuple[CellRecord, Probabilities] | Failure | Broken


def job_of(candidate: Candidate, key: CellKey) -> Job:
    """Describe a cell to a worker."""
    if isinstance(candidate, BaselineCandidate):
        return Job(key, candidate.distribution, None)
    weights = candidate.weights
    trained = Trained(weights.record, weights.folder, candidate.settings, candidate.tuned)
    return Job(key, candidate.distribution, trained)


def candidate_of(job: Job, registry: Registry) -> Candidate:
    """Make the candidate of a job with this process's own plugins.

    Raises:
        PluginError: they are not those of the process that sent it.
    """
    name, trained = job.key.candidate, job.trained
    if trained is None:
        baseline = registry.baseline(name).item
        return BaselineCandidate(baseline=baseline, distribution=job.distribution)
    backbone = registry.backbone(name).item
    build = None
    if trained.record.source == "stand-in":
        if backbone.stand_in is None:
            raise PluginError(f"{name} has no stand-in in the worker's process")
        build = backbone.stand_in.build
    return BackboneCandidate(
        backbone=backbone,
        distribution=job.distribution,
        weights=Weights(trained.record, trained.folder, {}, build=build),
        settings=trained.settings,
        tuned=trained.tuned,
    )
