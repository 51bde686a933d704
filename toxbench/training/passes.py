"""Forward and backward passes of a training: as they are written, or recorded and repeated."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from typing import Protocol

import torch
from torch import nn

from toxbench.training.batching import Batch
from toxbench.training.device import Device, random_state, set_random_state

Work = Callable[[Batch, float | torch.Tensor], torch.Tensor]
"""Add a batch's gradients, times a weight, to the parameters' own; return its loss, detached."""

# Plain passes that a recording costs, with its check.
_COST = 4
# Of a gradient's length. bf16 in another order of sums differs by less, another dropout mask by
# more.
_TOLERANCE = 0.05


class CannotRecordError(Exception):
    """A pass does what a recording cannot hold."""


class Recording(Protocol):
    """A pass of one shape, ready to be repeated."""

    def repeat(self, batch: Batch, weight: float) -> torch.Tensor:
        """Do what the recorded work would do with this batch, which has the shape recorded."""


Record = Callable[[Work, Batch], Recording]
"""Record some work for batches like this one; raises `CannotRecordError`.

Gradients and torch's generators may be anything afterwards.
"""


@dataclass(frozen=True)
class PassCounts:
    """How the passes of a training were computed.

    Attributes:
        plain: as they are written.
        repeated: from a recording.
        refused: why recordings were given up, in a line; None: they were not.
    """

    plain: int = 0
    repeated: int = 0
    refused: str | None = None


class Passes(Protocol):
    """Computes the passes of a training."""

    @property
    def counts(self) -> PassCounts:
        """How they were computed so far."""

    def run(self, batch: Batch, weight: float) -> torch.Tensor:
        """Do the work of one pass; what it returns holds until the next one."""

    def clear(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the gradients, after a step."""


class PlainPasses:
    """Each pass as it is written."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._count = 0

    @property
    def counts(self) -> PassCounts:
        """All are plain."""
        return PassCounts(plain=self._count)

    def run(self, batch: Batch, weight: float) -> torch.Tensor:
        """Do the work."""
        self._count += 1
        return self._work(batch, weight)

    def clear(self, optimizer: torch.optim.Optimizer) -> None:
        """Free the gradients."""
        optimizer.zero_grad(set_to_none=True)


@dataclass(eq=False)
class _Shape:
    """Batches of one size, and their recording once it can be trusted."""

    seen: int = 0
    recording: Recording | None = None


class RepeatedPasses:
    """Passes of shapes that come again are recorded and repeated, which costs the host little.

    No recording is taken on trust. From the same random numbers it has to come to the gradients of
    the pass that it stands for, with other weights and another batch than it was made with. After a
    failure or a difference, this training records nothing more and repeats nothing. What cannot be
    seen so is a module that counts its passes on the host and later does something else.
    """

    def __init__(
        self,
        work: Work,
        module: nn.Module,
        device: Device,
        record: Record,
        steps: int,
    ) -> None:
        """Record nothing yet.

        Args:
            work: a pass.
            module: whose gradients it adds to; they stay where they are in memory.
            device: where it computes.
            record: how to record it.
            steps: of the training, which say how often a shape will come again.
        """
        self._work = work
        self._module = module
        self._device = device
        self._record = record
        self._steps = steps
        self._step = 0
        self._shapes: dict[torch.Size, _Shape] = {}
        self._counts = PassCounts()
        self._has_gradients = False

    @property
    def counts(self) -> PassCounts:
        """How they were computed so far."""
        return self._counts

    def run(self, batch: Batch, weight: float) -> torch.Tensor:
        """Repeat the pass if there is a recording, or if one pays; else do the work."""
        shape = self._shapes.setdefault(batch.input_ids.shape, _Shape())
        shape.seen += 1
        if shape.recording is None and self._pays(shape):
            shape.recording = self._recording(batch, weight)
        self._has_gradients = True
        plain, repeated, refused = astuple(self._counts)
        if shape.recording is None:
            self._counts = PassCounts(plain + 1, repeated, refused)
            return self._work(batch, weight)
        self._counts = PassCounts(plain, repeated + 1)
        return shape.recording.repeat(batch, weight)

    def clear(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the gradients to 0 where they are: recordings add to them there."""
        optimizer.zero_grad(set_to_none=False)
        self._has_gradients = False
        self._step += 1

    def _pays(self, shape: _Shape) -> bool:
        if self._counts.refused is not None or self._has_gradients or shape.seen == 1:
            return False
        return shape.seen / (self._step + 1) * (self._steps - self._step) > _COST

    def _recording(self, batch: Batch, weight: float) -> Recording | None:
        """Record a pass and check the recording; None: it cannot be done, or differs."""
        before = random_state(self._device)
        try:
            with _restored(self._module):
                recording = self._record(self._work, batch)
                _disturb(self._module)
                difference = self._difference(recording, _other(batch), weight / 2, before)
            if not difference <= _TOLERANCE:
                raise CannotRecordError(f"a repeated pass came to gradients {difference:.0%} off")
        except (CannotRecordError, torch.OutOfMemoryError) as error:
            self._counts = replace(self._counts, refused=str(error).partition("\n")[0])
            self._shapes.clear()
            return None
        finally:
            self._rewind(before)
        return recording

    def _difference(
        self, recording: Recording, batch: Batch, weight: float, state: Sequence[torch.Tensor]
    ) -> float:
        """Return how far the gradients of a recording are from those of the work."""
        self._rewind(state)
        recording.repeat(batch, weight)
        found = [gradient.clone() for gradient in self._gradients()]
        self._rewind(state)
        self._work(batch, weight)
        return _difference(found, self._gradients())

    def _rewind(self, state: Sequence[torch.Tensor]) -> None:
        """Go back to the beginning of the step."""
        set_random_state(self._device, state)
        for gradient in self._gradients():
            gradient.zero_()

    def _gradients(self) -> list[torch.Tensor]:
        return [one.grad for one in self._module.parameters() if one.grad is not None]


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Give a module its parameters and buffers back, at their places in memory."""
    tensors = [one.detach() for one in (*module.parameters(), *module.buffers())]
    kept = [one.clone() for one in tensors]
    try:
        yield
    finally:
        for one, value in zip(tensors, kept, strict=True):
            one.copy_(value)


def _disturb(module: nn.Module) -> None:
    """Move the weights far, each on its own: to scale all of them may change no gradient."""
    for one in module.parameters():
        if one.is_floating_point():
            one.detach().mul_(torch.rand_like(one) + 0.5)


def _other(batch: Batch) -> Batch:
    """Return another batch of the same shape, with padding.

    transformers computes one without by other kernels, unless it records.
    """
    mask = batch.attention_mask.flip(0)
    mask[0, 1:] = 0
    return Batch(batch.input_ids.flip(0), mask, 1 - batch.targets)


def _difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Return how long the difference of two gradients is, by the length of the second one."""
    if len(found) != len(expected):
        return float("inf")
    off = nn.utils.get_total_norm([a - b for a, b in zip(found, expected, strict=True)])
    length = nn.utils.get_total_norm(expected)
    return 0.0 if float(off) == 0 else float(off / length)
