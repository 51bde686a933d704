"""One training by several processes that torchrun started: what they divide and agree on.

Every process runs the same code. A `ProcessGroup` returns this process's part of the work; a group
of one process divides nothing.
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
from toxbench.training.oom import OutOfMemoryError, retried
from toxbench.util.arrays import Rows

Result = TypeVar("Result")
Values = npt.NDArray[np.float32]

# The coordinator notices that a process is gone; a process that lives may be slow.
_PATIENCE = timedelta(days=7)


class CompanionError(CellsFailedError):
    """Another process could not do its part."""


@dataclass(frozen=True)
class Pass:
    """One forward pass of this process in a step.

    Attributes:
        rows: to compute.
        counted: how many of them count in the step's mean: all, or none where a process without
            rows computes some of another one's, to be there when gradients are averaged.
    """

    rows: Rows
    counted: int


class Replica:
    """What is trained, as this process computes with it."""

    def __init__(self, forward: nn.Module) -> None:
        self.forward = forward  # ids and mask [batch, token] -> float32 logits [batch, label]

    def passing(self, is_last: bool) -> AbstractContextManager[object]:
        """Enter for each forward and backward pass; at the last of a step gradients are whole."""
        return nullcontext()


class _SharedReplica(Replica):
    def __init__(self, forward: DistributedDataParallel) -> None:
        super().__init__(forward)
        self._shared = forward

    def passing(self, is_last: bool) -> AbstractContextManager[object]:
        return nullcontext() if is_last else self._shared.no_sync()


class ProcessGroup:
    """One process: it computes everything."""

    rank = 0
    size = 1

    def per_rank_batch(self, batch_size: int) -> int:
        """Return how many comments of a batch one process computes at once."""
        return -(-batch_size // self.size)

    def share(self, step: Sequence[Rows]) -> list[Pass]:
        """Return this process's part of a step, which is given as all its forward passes."""
        return [Pass(rows, len(rows)) for rows in step]

    def replica(self, forward: nn.Module) -> Replica:
        """Prepare what is trained; then its parameters are the same in every process."""
        return Replica(forward)

    def seed_rank(self, seed: int) -> None:
        """Seed torch for what must differ between processes, such as dropout."""

    def same_buffers(self, module: nn.Module) -> None:
        """Give the module the buffers of the first process, such as running means."""

    def sum(self, value: float) -> float:
        """Return the sum of every process's value."""
        return value

    def broadcast_flag(self, flag: bool) -> bool:
        """Return what the first process says."""
        return flag

    def any(self, flag: bool) -> bool:
        """Return whether a process says yes; each has to ask at the same step."""
        return flag

    def of_the_first(self, work: Callable[[], Any]) -> Any:
        """Do something in the first process; return the plain value that comes of it in all."""
        return work()

    def gathered(self, value: Any) -> list[Any]:
        """Return every process's plain value, in the order of ranks, to the first process."""
        return [value]

    def run_on_all(self, work: Callable[[], Result]) -> Result:
        """Do something in every process; where one fails, all do.

        Raises:
            CompanionError: another one failed.
        """
        return work()

    def run_rank0_first(self, work: Callable[[], Result]) -> Result:
        """Do something in the first process, then in the others, which may find what it left.

        Raises:
            CompanionError: another one failed.
        """
        return work()

    def scatter_rows(
        self, rows: Rows, sizes: npt.NDArray[np.int64], work: Callable[[Rows], Values]
    ) -> Values:
        """Compute a value ``[row, column]`` of each row, each row in one process.

        Args:
            rows: in the order of the result.
            sizes: of all rows of the table; what is divided evenly.
            work: computes the values of some rows, in their order.

        Returns:
            the values of all, in every process.

        Raises:
            CompanionError: another process failed.
        """
        return work(rows)

    def retried(self, work: Callable[[int], Result], batch_size: int) -> tuple[Result, int]:
        """Do work in pieces of `per_rank_batch` comments; where memory runs out, in smaller ones.

        Returns:
            what ``work`` returned, and the size of the pieces.

        Raises:
            OutOfMemoryError: it cannot be done by this process alone, or not at all.
        """
        return retried(work, self.per_rank_batch(batch_size), smallest=1)


SINGLE_PROCESS = ProcessGroup()


class TorchrunGroup(ProcessGroup):
    """One of several processes; inside of `connected` each of them has to call the same methods.

    All but gradients is exchanged between processors, so that nobody waits for a GPU.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.halvings = 0  # of `portion`, because memory ran out

    def share(self, step: Sequence[Rows]) -> list[Pass]:
        """Deal the passes out; who gets none computes a row that does not count."""
        own = [Pass(rows, len(rows)) for rows in step[self.rank :: self.size]]
        return own or [Pass(step[0][:1], 0)]

    def replica(self, forward: nn.Module) -> Replica:
        """Wrap it; gradients are averaged while the last backward pass of a step goes on.

        Parameters that a pass does not use (a pooler, a layer that was left out) are looked for in
        each of them: which they are is the backbone's affair.
        """
        shared = DistributedDataParallel(
            forward, find_unused_parameters=True, gradient_as_bucket_view=True
        )
        return _SharedReplica(shared)

    def seed_rank(self, seed: int) -> None:
        """Seed every process but the first, which goes on as it would alone."""
        if self.rank > 0:
            (state,) = np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)
            torch.manual_seed(int(state >> 1))

    def same_buffers(self, module: nn.Module) -> None:
        """Send those that a training may change."""
        for buffer in module.buffers():
            if buffer.is_floating_point():
                dist.broadcast(buffer, 0)

    def sum(self, value: float) -> float:
        """Add up in float64."""
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    def broadcast_flag(self, flag: bool) -> bool:
        """Send it."""
        said = torch.tensor(int(flag))
        dist.broadcast(said, 0)
        return bool(said)

    def any(self, flag: bool) -> bool:
        """Look for the largest."""
        said = torch.tensor(int(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def of_the_first(self, work: Callable[[], Any]) -> Any:
        """Send it."""
        return from_the_first(work() if self.rank == 0 else None)

    def gathered(self, value: Any) -> list[Any]:
        """Send it to the first."""
        values: list[Any] = [None] * self.size
        dist.gather_object(value, values if self.rank == 0 else None, 0)
        return values

    def run_on_all(self, work: Callable[[], Result]) -> Result:
        """Do it, and tell the others how it went."""
        found: list[Result] = []
        problem: Exception | None = None
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001 - raised below, when all know of it
            problem = error
        said: list[str | None] = [None] * self.size
        dist.all_gather_object(said, None if problem is None else _described(problem))
        if problem is not None:
            raise problem
        for rank, reason in enumerate(said):
            if reason is not None:
                raise CompanionError(f"rank {rank} of {self.size}: {reason}")
        return found[0]

    def run_rank0_first(self, work: Callable[[], Result]) -> Result:
        """Let the others wait for the first."""
        if self.rank == 0:
            found = self.run_on_all(work)
            self.run_on_all(lambda: None)
            return found
        self.run_on_all(lambda: None)
        return self.run_on_all(work)

    def scatter_rows(
        self, rows: Rows, sizes: npt.NDArray[np.int64], work: Callable[[Rows], Values]
    ) -> Values:
        """Deal the rows out from the largest to the smallest; whoever has none adds nothing."""
        own = np.argsort(-sizes[rows], kind="stable")[self.rank :: self.size]
        values = self.run_on_all(lambda: work(rows[own]))
        whole = torch.zeros(len(rows), values.shape[1])
        whole[torch.from_numpy(own)] = torch.from_numpy(values)
        dist.all_reduce(whole)
        found: Values = whole.numpy()
        return found

    def retried(self, work: Callable[[int], Result], batch_size: int) -> tuple[Result, int]:
        """Try one size only: another one is for all processes to begin with anew."""
        size = -(-self.per_rank_batch(batch_size) // 2**self.halvings)
        try:
            return retried(work, size, smallest=size)
        except OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"memory ran out with {size} comments in a forward pass of each process; "
                "use a smaller --batch-size or --max-length"
            ) from error


@contextmanager
def connected(store: Store, rank: int, size: int, kind: str) -> Iterator[None]:
    """Connect the processes inside: gloo between processors, and nccl between GPUs.

    Args:
        store: of these processes alone, and new each time.
        rank: of this one.
        size: how many there are.
        kind: of the devices that gradients are on, ``cpu`` or ``cuda``.
    """
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def from_the_first(value: object) -> Any:
    """Return the first process's plain value; what the others give is not looked at."""
    values = [value]
    dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
    return values[0]


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
