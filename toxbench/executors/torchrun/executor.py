"""Tasks that all processes of torchrun compute together; the process of rank 0 leads.

Rank 0 alone plans, locks, writes and prints. The other ranks wait for its assignments, compute the
same task and write nothing. Rank 0 computes tasks that are not shared, such as baselines, alone.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from torch.distributed.distributed_c10d import PrefixStore

from toxbench.errors import ProcessLostError
from toxbench.executors.base import (
    RunnerConfig,
    TaskCallbacks,
    TaskError,
    TaskRunner,
    Tasks,
    TaskSpec,
)
from toxbench.executors.torchrun.coordinator import END, Coordinator
from toxbench.plugin.registry import Registry
from toxbench.training.device import OutOfMemoryError
from toxbench.training.process_group import TorchrunGroup, connected, from_the_first
from toxbench.util.processes import SignalStop, StopRequested

_SAME_FAILURE_SECONDS = 10.0  # within which ranks fail that fail for the same reason
_LOSS_SECONDS = 5.0  # after which it is known why another rank left a collective operation
_POLL_SECONDS = 0.05
_CONNECTION_ERRORS = ("DistBackendError", "DistNetworkError", "DistStoreError", "DistError")


@dataclass(frozen=True)
class Assignment:
    """The task that all ranks compute next.

    Attributes:
        config: with the first assignment; None with later ones.
        spec: the task.
        halvings: how often the number of comments in a forward pass was halved because memory
            ran out.
    """

    config: RunnerConfig | None
    spec: TaskSpec
    halvings: int = 0


class _Rank:
    """Methods that rank 0 and the other ranks share."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._env = coordinator.env
        self._group = TorchrunGroup(coordinator.env.rank, coordinator.env.size)

    @contextmanager
    def _connected(self, number: int, kind: str) -> Iterator[None]:
        """Connect the ranks for one assignment, so that its errors do not affect the next one."""
        size, rank = self._env.size, self._env.rank
        self._coordinator.publish(f"met/{number}/{rank}", "")
        for peer in range(size):
            self._coordinator.wait(f"met/{number}/{peer}")
        store = PrefixStore(f"assignment {number}", self._coordinator.store)
        with self._coordinator.guarded(), connected(store, rank, size, kind):
            yield

    def _publish_outcome(self, number: int, problem: str) -> None:
        self._coordinator.publish(f"outcome/{number}/{self._env.rank}", problem)

    def _wait_for_outcome(self, number: int, rank: int, timeout: float) -> str | None:
        return self._coordinator.wait(f"outcome/{number}/{rank}", END, timeout=timeout)

    def _connection_lost(self, number: int, problem: str) -> ProcessLostError:
        """Return the error of the rank that exited or failed, as far as this rank can find out."""
        end = time.monotonic() + _LOSS_SECONDS
        while time.monotonic() < end:
            for rank in range(self._env.size):
                outcome = self._coordinator.wait(f"outcome/{number}/{rank}", timeout=0.0)
                if outcome and not _is_connection_error(outcome):
                    return self._failed_alone(rank, outcome)
            lost = self._coordinator.lost_peer()
            if lost is not None:
                return lost
            time.sleep(_POLL_SECONDS)
        return ProcessLostError(f"the connection between processes is lost: {problem}", None)

    def _failed_alone(self, rank: int, problem: str) -> ProcessLostError:
        """Return the error of a rank that failed while others did not: they would wait forever."""
        reason = f"failed, and not all others did: {problem}"
        if rank == self._env.rank:
            self._coordinator.leave(reason)
        return ProcessLostError(f"{self._env.describe_rank(rank)} {reason}", rank)


class TorchrunExecutor(_Rank):
    """The executor in rank 0; the other ranks call `serve`."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(coordinator)
        self._number = 0

    def compute(self, config: RunnerConfig, tasks: Tasks, callbacks: TaskCallbacks) -> None:
        """Compute tasks one after the other; see `Executor`.

        A task that fails in all ranks loses only its own result.

        Raises:
            StorageError: results cannot be written.
            ProcessLostError: a rank exited, or failed while others did not.
        """
        runner = config.runner(SignalStop(), self._group)
        is_first = True
        for task in tasks:
            assert task is not None  # noqa: S101 - only searches yield None, and run elsewhere
            callbacks.started(task)
            spec = task.spec
            work = partial(runner.compute, task, partial(callbacks.on_progress, task))
            if spec.is_shared:
                result = self._compute_on_all(Assignment(config if is_first else None, spec), work)
                is_first = False
            else:
                result = work()
            if isinstance(result, TaskError):
                callbacks.failed(task, result)
            else:
                callbacks.done(task, result)

    def _compute_on_all(self, assignment: Assignment, work: Callable[[], object]) -> object:
        """Assign a task; if all ranks run out of memory, again with smaller forward passes."""
        spec = assignment.spec
        per_rank = self._group.per_rank_batch(spec.batch_size) if spec.batch_size else 1
        for halvings in count():
            self._group.halvings = halvings
            result, problems = self._assign(replace(assignment, halvings=halvings), work)
            if not any(p.startswith(OutOfMemoryError.__name__) for p in problems):
                break
            if 2**halvings >= per_rank:
                break
        return result

    def _assign(
        self, assignment: Assignment, work: Callable[[], object]
    ) -> tuple[object, list[str]]:
        """Compute a task in all ranks; return the result and each rank's problem, "" for none."""
        self._number += 1
        kind = "cuda" if assignment.spec.uses_gpu else "cpu"
        self._coordinator.publish(f"assignment/{self._number}", kind)
        result: object
        try:
            with self._connected(self._number, kind):
                from_the_first(assignment)
                result = work()
        except StopRequested:
            raise self._connection_lost(self._number, "it was asked to stop") from None
        except RuntimeError as error:  # of the connection: a task's errors are results
            result = TaskError.of(error)
        problem = _problem(result)
        self._publish_outcome(self._number, problem)
        return result, [problem, *self._problems_of_others(problem)]

    def _problems_of_others(self, problem: str) -> list[str]:
        """Return the problems of the other ranks, if all ranks succeeded or all failed."""
        if _is_connection_error(problem):
            raise self._connection_lost(self._number, problem)
        deadline = time.monotonic() + (_SAME_FAILURE_SECONDS if problem else math.inf)
        problems: list[str] = []
        for rank in range(1, self._env.size):
            timeout = max(0.0, deadline - time.monotonic())
            outcome = self._wait_for_outcome(self._number, rank, timeout)
            if outcome is None:
                raise self._failed_alone(0, problem)
            if outcome and not problem:
                raise self._failed_alone(rank, outcome)
            problems.append(outcome)
        return problems


def serve(coordinator: Coordinator, registry: Registry) -> int:
    """Compute with rank 0 until it publishes its exit code; return that code.

    The plugins of ``registry`` must be those of rank 0.

    Raises:
        ProcessLostError: a rank exited, or this one failed while others did not.
    """
    return _Follower(coordinator).serve(registry)


class _Follower(_Rank):
    """A rank above 0."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(coordinator)
        self._runner: TaskRunner | None = None

    def serve(self, registry: Registry) -> int:
        for number in count(1):
            kind = self._coordinator.wait(f"assignment/{number}", END)
            if kind not in {"cpu", "cuda"}:
                return int(kind or 0)
            problem = self._compute_assignment(number, kind, registry)
            self._publish_outcome(number, problem)
            if _is_connection_error(problem):
                raise self._connection_lost(number, problem)
            if problem and self._wait_for_outcome(number, 0, _SAME_FAILURE_SECONDS) is None:
                raise self._failed_alone(self._env.rank, problem)
        raise AssertionError  # count() has no end

    def _compute_assignment(self, number: int, kind: str, registry: Registry) -> str:
        """Compute an assignment; return the problem, or "" if there is none."""
        try:
            with self._connected(number, kind):
                return _problem(self._compute(from_the_first(None), registry))
        except ProcessLostError:
            raise
        except StopRequested:
            raise self._connection_lost(number, "it was asked to stop") from None
        except Exception as error:  # noqa: BLE001 - published, and reported by rank 0
            return f"{type(error).__name__}: {' '.join(str(error).split())}"

    def _compute(self, assignment: Assignment, registry: Registry) -> object:
        if assignment.config is not None:
            self._runner = assignment.config.runner(SignalStop(), self._group)
        assert self._runner is not None  # noqa: S101 - the first assignment has a config
        self._group.halvings = assignment.halvings
        return self._runner.compute(assignment.spec.task(registry), lambda progress: None)


def _problem(result: object) -> str:
    return f"{result.kind}: {result.reason}" if isinstance(result, TaskError) else ""


def _is_connection_error(problem: str) -> bool:
    """Whether an error only means that another process left the collective operation."""
    return problem.startswith(_CONNECTION_ERRORS) or "gloo/transport" in problem
