"""Cells computed in this process, one after the other, and what is heard of them."""

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol as Interface

from toxbench.benchmark.candidate import Candidate
from toxbench.benchmark.cell import CellRunner, Probabilities
from toxbench.data.split import Protocol
from toxbench.errors import StorageError
from toxbench.records import CellKey, CellRecord, EpochRecord
from toxbench.store.models import ModelStore
from toxbench.training.device import Device
from toxbench.training.distributed import ALONE, Group

Task = tuple[Candidate, CellKey]


@dataclass(frozen=True)
class Failure:
    """A cell that has no result, and why.

    Attributes:
        kind: name of the error's class.
        reason: one line.
        trace: the traceback, "" where there is none.
    """

    key: CellKey
    kind: str
    reason: str
    trace: str = ""

    @classmethod
    def of(cls, key: CellKey, error: BaseException) -> "Failure":
        """Describe an error so that it can be sent to another process."""
        reason = " ".join(str(error).split()) or "no message"
        return cls(key, type(error).__name__, reason, "".join(traceback.format_exception(error)))

    def __str__(self) -> str:
        name = f"cell {self.key.candidate} seed {self.key.seed}"
        return f"{name} failed: {self.kind}: {self.reason}"


class Listener(Interface):
    """Hears of cells while they are computed, in whatever process."""

    def started(self, candidate: Candidate, key: CellKey) -> None:
        """A cell begins."""

    def epoch(self, key: CellKey, record: EpochRecord) -> None:
        """An epoch ended."""

    def done(self, record: CellRecord, probabilities: Probabilities) -> None:
        """A cell has its result."""

    def failed(self, failure: Failure) -> None:
        """A cell has none."""


class Station:
    """Computes one cell at a time; what the cells of one candidate share is prepared once."""

    def __init__(
        self,
        protocol: Protocol,
        devices: Mapping[str, Device],
        models: ModelStore | None = None,
        group: Group = ALONE,
    ) -> None:
        """Prepare nothing yet.

        Args:
            protocol: the table and its folds.
            devices: candidate title -> where it computes.
            models: where trained models are written; None: nowhere.
            group: the processes that compute the same cells.
        """
        self._group = group
        self._protocol = protocol
        self._devices = devices
        self._models = models
        self._current: tuple[Candidate, CellRunner] | None = None

    def compute(
        self, candidate: Candidate, key: CellKey, on_epoch: Callable[[EpochRecord], None]
    ) -> tuple[CellRecord, Probabilities] | Failure:
        """Return the cell's result, or why it has none.

        Raises:
            StorageError: the disk fails every cell alike.
        """
        if self._current is None or self._current[0] is not candidate:
            device = self._devices[candidate.title]
            runner = CellRunner(candidate, self._protocol, device, self._models, self._group)
            self._current = candidate, runner
        try:
            return self._current[1].run(key, on_epoch)
        except StorageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, counted, exit code 5
            return Failure.of(key, error)


def compute_here(station: Station, tasks: Iterable[Task], listener: Listener) -> None:
    """Compute cells one after the other.

    Raises:
        StorageError: results cannot be written.
    """
    for candidate, key in tasks:
        listener.started(candidate, key)

        def on_epoch(record: EpochRecord, key: CellKey = key) -> None:
            listener.epoch(key, record)

        found = station.compute(candidate, key, on_epoch)
        if isinstance(found, Failure):
            listener.failed(found)
        else:
            listener.done(*found)
