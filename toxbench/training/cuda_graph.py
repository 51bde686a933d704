"""A forward and backward pass as a CUDA graph: launched as one, whatever it is made of."""

from dataclasses import dataclass, fields

import torch

from toxbench.training.batching import Batch
from toxbench.training.passes import CannotRecordError, Work


@dataclass(frozen=True, eq=False)
class _Graph:
    """A graph, and the tensors that it reads and writes at their places in memory."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    weight: torch.Tensor
    loss: torch.Tensor

    def repeat(self, batch: Batch, weight: float) -> torch.Tensor:
        """Fill the places and launch the graph; the host waits for nothing."""
        for name in _TENSORS:
            getattr(self.batch, name).copy_(getattr(batch, name))
        self.weight.fill_(weight)
        self.graph.replay()
        return self.loss


_TENSORS = tuple(field.name for field in fields(Batch))


class CudaRecorder:
    """Records passes on the current CUDA device; all its graphs share one pool of memory.

    They may: one runs at a time, and what it returns is used before the next one runs.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, work: Work, batch: Batch) -> _Graph:
        """Record the work; raises `CannotRecordError`."""
        own = Batch(*(getattr(batch, name).clone() for name in _TENSORS))
        weight = torch.zeros((), device=own.targets.device)
        here = torch.cuda.current_stream()
        with torch.cuda.stream(here):  # a capture that fails does not come back to it
            self._try(work, own, weight, here)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    loss = work(own, weight)
            except Exception as error:  # the plain pass comes next, and raises what is not ours
                graph.reset()
                _renew_generator()
                raise CannotRecordError(f"a pass cannot be recorded: {error}") from error
        return _Graph(graph, own, weight, loss)

    def _try(self, work: Work, batch: Batch, weight: torch.Tensor, here: torch.cuda.Stream) -> None:
        """Do the work once where it will be recorded: what is set up lazily is not recorded."""
        before = torch.get_rng_state()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            work(batch, weight)
        here.wait_stream(self._stream)
        if not torch.equal(before, torch.get_rng_state()):
            raise CannotRecordError("a pass draws random numbers on the host")


def _renew_generator() -> None:
    """Give the device a generator that does not wait for the end of a capture that failed.

    Graphs that were recorded before go on with the old one: they must not be used any more.
    """
    device = torch.cuda.current_device()
    fresh = torch.Generator(torch.device("cuda", device))
    torch.cuda.default_generators[device].graphsafe_set_state(fresh)
