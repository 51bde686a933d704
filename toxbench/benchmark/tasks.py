"""The cells of a run as tasks of an executor: what is computed, told and sent elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from toxbench.benchmark.candidate import BackboneCandidate, BaselineCandidate, Candidate
from toxbench.benchmark.cell import CellRunner, GoingOn, Probabilities
from toxbench.data.split import Protocol
from toxbench.errors import PluginError, StorageError
from toxbench.executors.interface import Fault, Job, Setup
from toxbench.interruption import Interruption
from toxbench.plugin.registry import Registry
from toxbench.records import CellKey, CellRecord, EpochRecord, TunedSettings, WeightsRecord
from toxbench.settings import TrainSettings
from toxbench.store.models import ModelStore
from toxbench.training.checkpoint import Keeping
from toxbench.training.device import Device
from toxbench.training.distributed import ALONE, Group
from toxbench.training.weights import Weights

OnEpoch = Callable[[EpochRecord], None]
Computed = tuple[CellRecord, Probabilities]


@dataclass(frozen=True)
class Failure:
    """A cell that has no result, and why."""

    key: CellKey
    fault: Fault

    def __str__(self) -> str:
        name = f"cell {self.key.candidate} seed {self.key.seed}"
        return f"{name} failed: {self.fault.kind}: {self.fault.reason}"


@dataclass(frozen=True)
class CellTask:
    """One cell to compute, and on which kind of device."""

    candidate: Candidate
    key: CellKey
    device: Device

    @property
    def job(self) -> "CellJob":
        """Describe it to another process."""
        candidate, backbone = self.candidate, None
        if isinstance(candidate, BackboneCandidate):
            backbone = backbone_values(candidate)
        return CellJob(
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
class BackboneValues:
    """How a backbone's cell is trained; a baseline's is not."""

    record: WeightsRecord
    settings: TrainSettings
    tuned: TunedSettings | None


@dataclass(frozen=True, kw_only=True)
class CellJob(Job):
    """A cell as plain values."""

    key: CellKey
    distribution: str
    device: Device
    backbone: BackboneValues | None

    def task(self, registry: Registry) -> CellTask:
        """Make the cell again with this process's own plugins; see `Job`."""
        name = self.key.candidate
        candidate: Candidate
        if self.backbone is None:
            baseline = registry.baseline(name).item
            candidate = BaselineCandidate(baseline=baseline, distribution=self.distribution)
        else:
            candidate = backbone_again(name, self, self.distribution, self.backbone, registry)
        return CellTask(candidate, self.key, self.device)


def backbone_values(candidate: BackboneCandidate) -> BackboneValues:
    """Take out of a candidate what can be sent to another process."""
    return BackboneValues(candidate.weights.record, candidate.settings, candidate.tuned)


def backbone_again(
    name: str, job: Job, distribution: str, values: BackboneValues, registry: Registry
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


@dataclass(frozen=True, kw_only=True)
class CellSetup(Setup):
    """What a process needs once to compute cells; ``writes`` is where trained models go.

    Attributes:
        protocol: the table and its folds.
        keeping: where the states of trainings are kept; None: nowhere.
    """

    protocol: Protocol
    keeping: Keeping | None = None

    def station(self, interruption: Interruption, group: Group = ALONE) -> "CellStation":
        """Make what computes.

        Args:
            interruption: what asks it to leave.
            group: the processes that compute the same cells.
        """
        models = None if self.writes is None else ModelStore(self.writes)
        going_on = None if self.keeping is None else GoingOn(self.keeping, interruption)
        return CellStation(self.protocol, models, going_on, group)


class CellStation:
    """Computes one cell at a time; what the cells of one candidate share is prepared once."""

    def __init__(
        self,
        protocol: Protocol,
        models: ModelStore | None,
        going_on: GoingOn | None,
        group: Group,
    ) -> None:
        """Prepare nothing yet.

        Args:
            protocol: the table and its folds.
            models: where trained models are written; None: nowhere.
            going_on: how trainings that are stopped are taken up again; None: they are not.
            group: the processes that compute the same cells.
        """
        self._group = group
        self._going_on = going_on
        self._protocol = protocol
        self._models = models
        self._current: tuple[tuple[str, str], CellRunner] | None = None

    def compute(self, task: CellTask, tell: OnEpoch) -> Computed | Fault:
        """Return the cell's result, or why it has none.

        Raises:
            StorageError: the disk fails every cell alike.
            Stopped: it was asked to, and the state of the training is kept.
        """
        name = task.key.candidate, task.key.digest
        if self._current is None or self._current[0] != name:
            runner = CellRunner(
                task.candidate,
                self._protocol,
                task.device,
                self._models,
                self._going_on,
                self._group,
            )
            self._current = name, runner
        try:
            return self._current[1].run(task.key, tell)
        except StorageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, counted, exit code 5
            return Fault.of(error)


def cell_tasks(
    cells: "list[tuple[Candidate, CellKey]]", devices: Mapping[str, Device]
) -> "list[CellTask]":
    """Make tasks of cells; ``devices`` is candidate title -> where it computes."""
    return [CellTask(c, key, devices[c.title]) for c, key in cells]
