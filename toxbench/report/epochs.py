"""How the trainings of one candidate went, epoch by epoch, averaged over its cells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from toxbench.records import CellRecord


@dataclass(frozen=True)
class EpochMean:
    """One epoch, mean over the cells that have it; None where no cell has such a value.

    Attributes:
        number: counted from 1.
        step: of the training, where it was looked at every few steps; None: an epoch is a pass.
        kept: cells that kept this epoch's weights.
    """

    number: int
    step: int | None
    train_loss: float
    validation_loss: float | None
    micro_f1: float | None
    average_precision: float | None
    seconds: float
    kept: int


def mean_epochs(cells: Sequence[CellRecord]) -> list[EpochMean]:
    """Average each epoch over cells; empty where none was trained in epochs."""
    longest = max((len(cell.epochs) for cell in cells), default=0)
    return [_mean_epoch(cells, number) for number in range(1, longest + 1)]


def _mean_epoch(cells: Sequence[CellRecord], number: int) -> EpochMean:
    there = [cell for cell in cells if len(cell.epochs) >= number]
    epochs = [cell.epochs[number - 1] for cell in there]

    def score(name: str) -> float | None:
        return mean_known(epoch.validation.get(name) for epoch in epochs)

    return EpochMean(
        number=number,
        step=epochs[0].step,
        train_loss=fmean(epoch.train_loss for epoch in epochs),
        validation_loss=score("loss"),
        micro_f1=score("micro_f1"),
        average_precision=score("micro_average_precision"),
        seconds=fmean(epoch.seconds for epoch in epochs),
        kept=sum(cell.best_epoch == number for cell in there),
    )


def mean_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
