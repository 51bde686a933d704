"""Data-parallel training by the processes that torchrun started.

Every process runs the same code. A `ProcessGroup` divides the work among the processes and
exchanges values between them; the group of a single process does neither.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import Store
from torch.nn.parallel import DistributedDataParallel

from toxbench.errors import CellsFailedError
from toxbench.training.device import OutOfMemoryError, retry_on_oom
from toxbench.util.arrays import Rows

Result = TypeVar("Result")
Values = npt.NDArray[np.float32]

# The coordinator detects processes that have ended; one that is alive may be slow.
_TIMEOUT = timedelta(days=7)


class CompanionError(CellsFailedError):
    """Another process failed."""


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of this process in a step.

    Attributes:
        rows: indices of the rows to compute.
        counted: number of rows that count in the step's mean: all of them, or 0. A process without
            rows computes a row of another process with weight 0, because the gradients are averaged
            over all processes.
    """

    rows: Rows
    counted: int


class ProcessGroup:
    """The group of a single process, which computes everything."""

    rank = 0
    size = 1

    def per_rank_batch(self, batch_size: int) -> int:
        """Return the number of comments of a batch that one process computes at once."""
        return -(-batch_size // self.size)

    def share(self, step: Sequence[Rows]) -> list[Pass]:
        """Return this process's passes of a step, given the rows of all passes."""
        return [Pass(rows, len(rows)) for rows in step]

    def replica(self, forward: nn.Module) -> nn.Module:
        """Prepare a module for training, with the same parameters in every process."""
        return forward

    def seed_rank(self, seed: int) -> None:
        """Seed torch for random numbers that differ between processes, such as dropout."""

    def same_buffers(self, module: nn.Module) -> None:
        """Copy the module's buffers, such as running means, from the first process to all."""

    def sum(self, value: float) -> float:
        """Return the sum of the values of all processes."""
        return value

    def broadcast_flag(self, flag: bool) -> bool:
        """Return the flag of the first process."""
        return flag

    def any(self, flag: bool) -> bool:
        """Return whether the flag of any process is True; all processes must call this."""
        return flag

    def of_the_first(self, work: Callable[[], Any]) -> Any:
        """Run work in the first process; return its result, a plain value, in all processes."""
        return work()

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all processes, ordered by rank, in the first process.

        In other processes the content of the result is undefined.
        """
        return [value]

    def run_on_all(self, work: Callable[[], Result]) -> Result:
        """Run work in every process; if it fails in one, raise in all.

        Raises:
            CompanionError: the work failed in another process.
        """
        return work()

    def run_rank0_first(self, work: Callable[[], Result]) -> Result:
        """Run work in the first process, then in the others, which can use files it wrote.

        Raises:
            CompanionError: the work failed in another process.
        """
        return work()

    def scatter_rows(
        self, rows: Rows, sizes: npt.NDArray[np.int64], work: Callable[[Rows], Values]
    ) -> Values:
        """Compute values for each row, each row in one process.

        Args:
            rows: indices of the rows, ``[row]``.
            sizes: cost of every row of the table, by which the rows are divided evenly.
            work: returns the values of the given rows, float32 ``[row, column]``.

        Returns:
            the values of all rows in the order of ``rows``, float32 ``[row, column]``, in every
            process.

        Raises:
            CompanionError: another process failed.
        """
        return work(rows)

    def retried(self, work: Callable[[int], Result], batch_size: int) -> tuple[Result, int]:
        """Run work in pieces of `per_rank_batch` comments; if memory runs out, in smaller pieces.

        Returns:
            the result of ``work``, and the size of the pieces.

        Raises:
            OutOfMemoryError: memory runs out with the smallest piece that this process may use.
        """
        return retry_on_oom(work, self.per_rank_batch(batch_size), smallest=1)


SINGLE_PROCESS = ProcessGroup()


class TorchrunGroup(ProcessGroup):
    """The group of several processes; inside `connected`, all must call the same methods.

    Gradients are exchanged between devices. Other values are exchanged through host memory, so
    that no process waits for a GPU.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.halvings = 0  # how often `per_rank_batch` was halved because memory ran out

    def share(self, step: Sequence[Rows]) -> list[Pass]:
        """Distribute the passes; a process without one computes a row that does not count."""
        passes = [Pass(rows, len(rows)) for rows in step[self.rank :: self.size]]
        return passes or [Pass(step[0][:1], 0)]

    def replica(self, forward: nn.Module) -> nn.Module:
        """Wrap a module; gradients are averaged during the last backward pass of a step.

        Unused parameters (a pooler, a skipped layer) are detected in each pass, because they depend
        on the backbone.
        """
        return DistributedDataParallel(
            forward, find_unused_parameters=True, gradient_as_bucket_view=True
        )

    def seed_rank(self, seed: int) -> None:
        """Seed every process except the first, which keeps its state of a single process."""
        if self.rank > 0:
            (state,) = np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)
            torch.manual_seed(int(state >> 1))

    def same_buffers(self, module: nn.Module) -> None:
        """Broadcast the buffers that training may change."""
        for buffer in module.buffers():
            if buffer.is_floating_point():
                dist.broadcast(buffer, 0)

    def sum(self, value: float) -> float:
        """Add in float64."""
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    def broadcast_flag(self, flag: bool) -> bool:
        """Broadcast the flag."""
        tensor = torch.tensor(int(flag))
        dist.broadcast(tensor, 0)
        return bool(tensor)

    def any(self, flag: bool) -> bool:
        """Return the maximum."""
        tensor = torch.tensor(int(flag))
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return bool(tensor)

    def of_the_first(self, work: Callable[[], Any]) -> Any:
        """Broadcast the result."""
        return from_the_first(work() if self.rank == 0 else None)

    def gathered(self, value: Any) -> list[Any]:
        """Send the value to the first process."""
        values: list[Any] = [None] * self.size
        dist.gather_object(value, values if self.rank == 0 else None, 0)
        return values

    def run_on_all(self, work: Callable[[], Result]) -> Result:
        """Run the work and exchange the errors."""
        results: list[Result] = []
        error: Exception | None = None
        try:
            results.append(work())
        except Exception as raised:  # noqa: BLE001 - raised below, after the exchange
            error = raised
        reasons: list[str | None] = [None] * self.size
        dist.all_gather_object(reasons, None if error is None else _describe(error))
        if error is not None:
            raise error
        for rank, reason in enumerate(reasons):
            if reason is not None:
                raise CompanionError(f"rank {rank} of {self.size}: {reason}")
        return results[0]

    def run_rank0_first(self, work: Callable[[], Result]) -> Result:
        """Let the other processes wait for the first one."""
        if self.rank == 0:
            result = self.run_on_all(work)
            self.run_on_all(lambda: None)
            return result
        self.run_on_all(lambda: None)
        return self.run_on_all(work)

    def scatter_rows(
        self, rows: Rows, sizes: npt.NDArray[np.int64], work: Callable[[Rows], Values]
    ) -> Values:
        """Distribute the rows from the largest to the smallest; a process may get none."""
        positions = np.argsort(-sizes[rows], kind="stable")[self.rank :: self.size]
        values = self.run_on_all(lambda: work(rows[positions]))
        total = torch.zeros(len(rows), values.shape[1])
        total[torch.from_numpy(positions)] = torch.from_numpy(values)
        dist.all_reduce(total)
        gathered: Values = total.numpy()
        return gathered

    def retried(self, work: Callable[[int], Result], batch_size: int) -> tuple[Result, int]:
        """Try a single size; to use another one, all processes must start the work again."""
        size = -(-self.per_rank_batch(batch_size) // 2**self.halvings)
        try:
            return retry_on_oom(work, size, smallest=size)
        except OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"memory ran out with {size} comments in a forward pass of each process; "
                "use a smaller --batch-size or --max-length"
            ) from error


@contextmanager
def connected(store: Store, rank: int, size: int, kind: str) -> Iterator[None]:
    """Connect the processes inside the context: gloo for host memory, nccl between GPUs.

    Args:
        store: used by these processes only, and new for each connection.
        rank: of this process.
        size: number of processes.
        kind: device of the gradients, ``cpu`` or ``cuda``.
    """
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def backward_context(replica: nn.Module, is_last: bool) -> AbstractContextManager[object]:
    """Return the context of a forward and backward pass of a `ProcessGroup.replica`.

    After the last pass of a step, the gradients are averaged over all processes.
    """
    if isinstance(replica, DistributedDataParallel) and not is_last:
        return replica.no_sync()
    return nullcontext()


def from_the_first(value: object) -> Any:
    """Return the plain value of the first process; the values of the others are ignored."""
    values = [value]
    dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
    return values[0]


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
