"""Cells that are computed by all processes of a run together; the first one leads.

It alone plans, locks, writes and prints. The others wait for its orders, compute along, and write
nothing. Baselines, which have nothing to divide, it computes alone.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import cast

from torch.distributed.distributed_c10d import PrefixStore

from toxbench.benchmark.candidates import BackboneCandidate, CellSpec, CellTask
from toxbench.benchmark.cell import CellRunner, CellRunnerConfig, Computed
from toxbench.errors import ProcessLostError
from toxbench.executors.base import RunnerConfig, TaskCallbacks, TaskError, Tasks
from toxbench.executors.torchrun.coordinator import END, Coordinator
from toxbench.plugin.registry import Registry
from toxbench.records import EpochRecord
from toxbench.training.oom import OutOfMemoryError
from toxbench.training.process_group import TorchrunGroup, connected, from_the_first
from toxbench.util.signals import SignalStop, StopRequested

_ALIKE = 10.0  # seconds within which processes fail that fail alike
_SEEN = 5.0  # seconds after which it is known why another process has left a collective
_PAUSE = 0.05  # seconds between two looks
_OF_CONNECTIONS = ("DistBackendError", "DistNetworkError", "DistStoreError", "DistError")

Found = Computed | TaskError


@dataclass(frozen=True)
class Assignment:
    """What all processes compute next.

    Attributes:
        setup: the first time.
        job: the cell.
        halvings: of the comments in a forward pass, because memory ran out with more.
    """

    setup: CellRunnerConfig | None
    spec: CellSpec
    halvings: int = 0


class _Member:
    """One of the processes."""

    def __init__(self, board: Coordinator) -> None:
        self._board = board
        self._place = board.place
        self._group = TorchrunGroup(board.place.rank, board.place.size)

    @contextmanager
    def _connected(self, number: int, kind: str) -> Iterator[None]:
        """Connect with the others for one order: what fails in it harms no other.

        Raises:
            ProcessLostError: a process is gone before all are connected.
        """
        size, rank = self._place.size, self._place.rank
        self._board.publish(f"met/{number}/{rank}", "")
        for other in range(size):
            self._board.wait(f"met/{number}/{other}")
        store = PrefixStore(f"order {number}", self._board.store)
        with self._board.guarded(), connected(store, rank, size, kind):
            yield

    def _tell(self, number: int, problem: str) -> None:
        self._board.publish(f"outcome/{number}/{self._place.rank}", problem)

    def _hear(self, number: int, rank: int, patience: float) -> str | None:
        return self._board.wait(f"outcome/{number}/{rank}", END, patience=patience)

    def _out_of_touch(self, number: int, problem: str) -> ProcessLostError:
        """Say which process is gone or failed, or that it cannot be seen from here."""
        end = time.monotonic() + _SEEN
        while time.monotonic() < end:
            for rank in range(self._place.size):
                said = self._board.wait(f"outcome/{number}/{rank}", patience=0.0)
                if said and not _has_lost_touch(said):
                    return self._alone(rank, said)
            lost = self._board.lost()
            if lost is not None:
                return lost
            time.sleep(_PAUSE)
        return ProcessLostError(f"the connection between processes is lost: {problem}", None)

    def _alone(self, rank: int, problem: str) -> ProcessLostError:
        """Say that a process failed where the others did not; what they compute has no end."""
        said = f"failed, and not all others did: {problem}"
        if rank == self._place.rank:
            self._board.leave(said)
        return ProcessLostError(f"{self._place.describe_rank(rank)} {said}", rank)


class Rank0Executor(_Member):
    """The first process."""

    def __init__(self, board: Coordinator) -> None:
        super().__init__(board)
        self._number = 0

    def compute(self, setup: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute cells one after the other, each by all processes.

        A failure that all have alike costs that cell.

        Raises:
            StorageError: results cannot be written.
            ProcessLostError: a process is gone, or failed where the others did not.
        """
        cells = cast(CellRunnerConfig, setup)
        runner = cells.runner(SignalStop(), self._group)
        is_first = True
        for task in cast(Iterator[CellTask], tasks):
            callbacks.started(task)

            def on_epoch(record: EpochRecord, task: CellTask = task) -> None:
                callbacks.on_progress(task, record)

            if isinstance(task.candidate, BackboneCandidate):
                work = partial(runner.compute, task, on_epoch)
                order = Assignment(cells if is_first else None, task.spec)
                found = self._by_all(order, task.device.kind, work)
                is_first = False
            else:
                found = runner.compute(task, on_epoch)
            if isinstance(found, TaskError):
                callbacks.failed(task, found)
            else:
                callbacks.done(task, found)

    def _by_all(self, order: Assignment, kind: str, work: Callable[[], Found]) -> Found:
        """Give an order; where memory ran out in all, again with smaller forward passes."""
        trained = order.spec.backbone
        per_rank_batch = self._group.per_rank_batch(trained.settings.batch_size) if trained else 1
        for halvings in count():
            self._group.halvings = halvings
            found, problems = self._give(replace(order, halvings=halvings), kind, work)
            if not any(p.startswith(OutOfMemoryError.__name__) for p in problems):
                break
            if 2**halvings >= per_rank_batch:
                break
        return found

    def _give(
        self, order: Assignment, kind: str, work: Callable[[], Found]
    ) -> tuple[Found, list[str]]:
        """Give an order, do it here as well, and hear how it went in each process."""
        self._number += 1
        self._board.publish(f"order/{self._number}", kind)
        found: Found
        try:
            with self._connected(self._number, kind):
                from_the_first(order)
                found = work()
        except StopRequested:
            raise self._out_of_touch(self._number, "it was asked to leave") from None
        except RuntimeError as error:  # of the connection; what a cell raises is a failure already
            found = TaskError.of(error)
        problem = _problem(found)
        self._tell(self._number, problem)
        return found, [problem, *self._judged(problem)]

    def _judged(self, problem: str) -> list[str]:
        """Return how an order went in the others, if all can go on after it."""
        if _has_lost_touch(problem):
            raise self._out_of_touch(self._number, problem)
        until = time.monotonic() + (_ALIKE if problem else math.inf)
        problems: list[str] = []
        for rank in range(1, self._place.size):
            on_progress = self._hear(self._number, rank, max(0.0, until - time.monotonic()))
            if on_progress is None:
                raise self._alone(0, problem)
            if on_progress and not problem:
                raise self._alone(rank, on_progress)
            problems.append(on_progress)
        return problems


class WorkerRank(_Member):
    """Any other process."""

    def __init__(self, board: Coordinator) -> None:
        super().__init__(board)
        self._runner: CellRunner | None = None

    def serve(self, registry: Registry) -> int:
        """Compute along until the first process lets this one leave; return the exit code.

        Args:
            registry: with the same plugins as that of the first process.

        Raises:
            ProcessLostError: a process is gone, or this one failed where the others did not.
        """
        for number in count(1):
            word = self._board.wait(f"order/{number}", END)
            if word not in {"cpu", "cuda"}:
                return int(word or 0)
            problem = self._take(number, word, registry)
            self._tell(number, problem)
            if _has_lost_touch(problem):
                raise self._out_of_touch(number, problem)
            if problem and self._hear(number, 0, _ALIKE) is None:
                raise self._alone(self._place.rank, problem)
        raise AssertionError  # count() has no end

    def _take(self, number: int, kind: str, registry: Registry) -> str:
        """Do an order; return what went wrong, or nothing."""
        try:
            with self._connected(number, kind):
                return _problem(self._compute(from_the_first(None), registry))
        except ProcessLostError:
            raise
        except StopRequested:
            raise self._out_of_touch(number, "it was asked to leave") from None
        except Exception as error:  # noqa: BLE001 - told to the first process, which says it
            return f"{type(error).__name__}: {' '.join(str(error).split())}"

    def _compute(self, order: Assignment, registry: Registry) -> Found:
        if order.setup is not None:
            self._runner = order.setup.runner(SignalStop(), self._group)
        assert self._runner is not None  # noqa: S101 - the first order has a setup
        self._group.halvings = order.halvings
        return self._runner.compute(order.spec.task(registry), lambda epoch: None)


def _problem(found: Found) -> str:
    return f"{found.kind}: {found.reason}" if isinstance(found, TaskError) else ""


def _has_lost_touch(problem: str) -> bool:
    """Whether an error only says that another process is no longer there to compute with."""
    return problem.startswith(_OF_CONNECTIONS) or "gloo/transport" in problem
