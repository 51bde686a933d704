"""Passes that are recorded and repeated: the same training, and nothing wrong is ever trusted.

On the CPU the recordings are stand-ins that do the work again; those of CUDA are tested on one.
"""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from toxbench import TrainSettings, first_token_classifier
from toxbench.data.split import Split
from toxbench.data.tokens import Tokens
from toxbench.evaluation.epochs import epoch_scores
from toxbench.training.batching import Batch
from toxbench.training.course import Trained
from toxbench.training.device import choose_device, seeded
from toxbench.training.loop import Trainer
from toxbench.training.passes import (
    CannotRecordError,
    PassCounts,
    Passes,
    PlainPasses,
    Record,
    RepeatedPasses,
    Work,
)
from toxbench.training.tricks import PLAIN, Tricks

LABELS = 3
CPU = choose_device("cpu", "fp32")
STEPS = 24


@dataclass(eq=False)
class Again:
    """Does the work again, at fixed places in memory as a graph does."""

    work: Work
    batch: Batch
    weight: torch.Tensor

    def repeat(self, batch: Batch, weight: float) -> torch.Tensor:
        for field in fields(Batch):
            getattr(self.batch, field.name).copy_(getattr(batch, field.name))
        return self.work(self.batch, self.weight.fill_(weight))


def again(work: Work, batch: Batch) -> Again:
    """Record, and leave gradients and random numbers in disorder."""
    own = Batch(*(getattr(batch, field.name).clone() for field in fields(Batch)))
    work(own, 1.0)
    return Again(work, own, torch.zeros(()))


class Normed(nn.Module):
    """A backbone that has running means."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.norm = nn.BatchNorm1d(LABELS)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.norm(self.inner(input_ids, attention_mask))
        return logits


def passes_of(module: nn.Module) -> Work:
    def work(batch: Batch, weight: float | torch.Tensor) -> torch.Tensor:
        logits = module(batch.input_ids, batch.attention_mask)
        value = functional.binary_cross_entropy_with_logits(logits, batch.targets)
        (value * weight).backward()
        return value.detach()

    return work


def make_batch(step: int, is_padded: bool = True) -> Batch:
    """Two shapes in turn."""
    rng = torch.Generator().manual_seed(step)
    width = 6 + 2 * (step % 2)
    ids = torch.randint(5, 40, (4, width), generator=rng)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0 if is_padded else 1
    targets = torch.randint(0, 2, (4, LABELS), generator=rng).float()
    return Batch(ids, mask, targets)


def train(
    checkpoint: Path, make: Callable[[nn.Module], Passes], passes_a_step: int = 1,
    is_padded: bool = True, learning_rate: float = 1e-3,
) -> tuple[bytes, PassCounts]:  # fmt: skip
    """Train with dropout; return the losses and the state, and how passes were computed."""
    torch.manual_seed(0)
    module = Normed(first_token_classifier(checkpoint, LABELS)).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate)
    passes = make(module)
    losses = []
    for step in range(STEPS):
        for part in range(passes_a_step):
            batch = make_batch(step * passes_a_step + part, is_padded)
            losses.append(float(passes.run(batch, 1 / (1 + part))))
        optimizer.step()
        passes.clear(optimizer)
    everything = [torch.tensor(losses), *module.state_dict().values()]
    return b"".join(one.numpy().tobytes() for one in everything), passes.counts


def repeated(record: Record, steps: int = STEPS) -> Callable[[nn.Module], Passes]:
    def make(module: nn.Module) -> Passes:
        return RepeatedPasses(passes_of(module), module, CPU, record, steps)

    return make


def plain(module: nn.Module) -> Passes:
    return PlainPasses(passes_of(module))


@pytest.mark.parametrize("passes_a_step", [1, 2])
def test_repeated_passes_train_to_the_same_bytes(checkpoint: Path, passes_a_step: int) -> None:
    expected, every = train(checkpoint, plain, passes_a_step)
    found, counts = train(checkpoint, repeated(again), passes_a_step)
    assert every == PassCounts(plain=STEPS * passes_a_step)
    assert found == expected
    assert counts.refused is None
    assert counts.plain + counts.repeated == STEPS * passes_a_step
    # Recorded is before the first pass of a step; of two, the second has always the other shape.
    assert counts.repeated == (STEPS - 2 if passes_a_step == 1 else STEPS - 1)


def test_gradients_stay_where_a_graph_adds_to_them(checkpoint: Path) -> None:
    places: list[set[int]] = []

    class Watched(RepeatedPasses):
        def clear(self, optimizer: torch.optim.Optimizer) -> None:
            super().clear(optimizer)
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            places.append({id(one) for one in gradients if one is not None})

    train(checkpoint, lambda module: Watched(passes_of(module), module, CPU, again, STEPS))
    assert places[0]
    assert all(found == places[0] for found in places)


def test_what_will_not_come_often_is_not_recorded(checkpoint: Path) -> None:
    _, counts = train(checkpoint, repeated(again, steps=4))
    assert counts == PassCounts(plain=STEPS)


def as_on_cuda(work: Work, batch: Batch) -> Again:
    """transformers computes a mask of ones only where it records: it does not look at it there."""

    def recorded(batch: Batch, weight: float | torch.Tensor) -> torch.Tensor:
        other_kernels = float(batch.attention_mask.all())
        return work(batch, weight * (1 + other_kernels))

    good = again(work, batch)
    return Again(recorded, good.batch, good.weight)


def test_a_batch_without_padding_is_compared_with_padding(checkpoint: Path) -> None:
    _, counts = train(checkpoint, repeated(as_on_cuda), is_padded=False)
    assert counts == PassCounts(plain=2, repeated=STEPS - 2)


def unrecordable(work: Work, batch: Batch) -> Again:
    again(work, batch)
    raise CannotRecordError("a pass reads a number back")


@dataclass(eq=False)
class Wrong(Again):
    """Repeats with other random numbers, with another weight, or with what was recorded."""

    kind: str

    def repeat(self, batch: Batch, weight: float) -> torch.Tensor:
        if self.kind == "noise":
            torch.rand(1)
        if self.kind == "weight":
            weight = 1.0
        if self.kind in {"input_ids", "targets"}:
            batch = replace(batch, **{self.kind: getattr(self.batch, self.kind)})
        return super().repeat(batch, weight)


def wrong(kind: str) -> Record:
    def record(work: Work, batch: Batch) -> Wrong:
        good = again(work, batch)
        return Wrong(good.work, good.batch, good.weight, kind)

    return record


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (unrecordable, "a pass reads a number back"),
        (wrong("noise"), "gradients [0-9]+% off"),
        (wrong("weight"), "gradients 100% off"),
        (wrong("input_ids"), "gradients [0-9]+% off"),
        (wrong("targets"), "gradients [0-9]+% off"),
    ],
    ids=["unrecordable", "noise", "weight", "input_ids", "targets"],
)
def test_what_cannot_be_repeated_is_computed_as_it_is_written(
    checkpoint: Path, record: Record, reason: str
) -> None:
    expected, _ = train(checkpoint, plain)
    found, counts = train(checkpoint, repeated(record))
    assert found == expected
    assert (counts.plain, counts.repeated) == (STEPS, 0)
    assert re.search(reason, counts.refused or "")


def test_a_recording_that_kept_its_weights_is_found_out(checkpoint: Path) -> None:
    """However little they move: nothing is learnt here."""

    def make(module: nn.Module) -> Passes:
        def frozen(work: Work, batch: Batch) -> Again:
            good, copied = again(work, batch), copy.deepcopy(module)
            for one, own in zip(copied.parameters(), module.parameters(), strict=True):
                one.grad = own.grad  # the gradients go where they belong
            return Again(passes_of(copied), good.batch, good.weight)

        return repeated(frozen)(module)

    expected, _ = train(checkpoint, plain, learning_rate=0.0)
    found, counts = train(checkpoint, make, learning_rate=0.0)
    assert found == expected
    assert counts.repeated == 0
    assert re.search("gradients [0-9]+% off", counts.refused or "")


class Reads(nn.Module):
    """A backbone that makes the host wait for its device, which no graph can hold."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.classifier = inner.classifier
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        width = int(attention_mask.sum(1).max())
        logits: torch.Tensor = self.inner(input_ids[:, :width], attention_mask[:, :width])
        return logits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("is_recordable", [True, False])
def test_cuda_graphs_change_nothing(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray, precision: str, is_recordable: bool
) -> None:
    device = choose_device("cuda", precision)
    settings = TrainSettings(epochs=10, batch_size=4, learning_rate=1e-3)
    rows = np.arange(len(targets))

    def trained(tricks: Tricks) -> tuple[Trained, np.ndarray]:
        torch.manual_seed(0)
        module = first_token_classifier(checkpoint, LABELS)
        module = module if is_recordable else Reads(module)
        with seeded(0, device):
            trainer = Trainer(module, ("classifier",), tokens, targets, settings, device, tricks)
            split = Split(rows, rows[:0], rows[:0])
            done = trainer.train(split, 0, epoch_scores, lambda s: True, lambda e: None)
            return done, trainer.predict(rows)

    expected, probabilities = trained(PLAIN)
    found, same = trained(replace(PLAIN, graphs=True))
    losses = [epoch.train_loss for epoch in expected.epochs]
    np.testing.assert_allclose([epoch.train_loss for epoch in found.epochs], losses, atol=1e-2)
    np.testing.assert_allclose(same, probabilities, atol=2e-2)
    assert expected.passes.repeated == 0
    assert (found.passes.refused is None) == is_recordable
    assert (found.passes.repeated > 0) == is_recordable
