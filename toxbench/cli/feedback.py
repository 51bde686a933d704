"""How a run is followed: a live display on a terminal, plain lines elsewhere, or nothing."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from toxbench.benchmark.run import Failure
from toxbench.records import CellKey, CellRecord, EpochRecord
from toxbench.report.words import printable


class Quiet:
    """Only failures are told."""

    def __init__(self, debug: bool = False) -> None:
        self._debug = debug

    def say(self, text: str) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """Say nothing."""

    def epoch_finished(self, key: CellKey, epoch: EpochRecord, comments: int) -> None:
        """Say nothing."""

    def cell_finished(self, record: CellRecord) -> None:
        """Say nothing."""

    def cell_failed(self, failure: Failure) -> None:
        """Write one line, and the traceback if it was asked for."""
        if self._debug:
            traceback.print_exception(failure.error)
        self._write(f"toxbench: error: {failure}")

    def _write(self, line: str) -> None:
        click.echo(printable(line), err=True)


class Plain(Quiet):
    """One line an event, for logs and pipes."""

    def say(self, text: str) -> None:
        """Write some lines."""
        for line in text.splitlines():
            self._write(line)

    def warn(self, message: str) -> None:
        """Write one line."""
        self._write(f"toxbench: warning: {message}")

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """Write which cell begins."""
        self._write(f"[{number}/{total}] {_name(key)}")

    def epoch_finished(self, key: CellKey, epoch: EpochRecord, comments: int) -> None:
        """Write how the epoch went."""
        self._write(f"[{_name(key)}] {_epoch(epoch, comments)}")

    def cell_finished(self, record: CellRecord) -> None:
        """Write what the cell scored."""
        self._write(f"[{_name(record.key)}] {_result(record)}")


class Live(Plain):
    """A progress display with one bar over all cells and one over the epochs of a cell."""

    def __init__(self, progress: Progress, debug: bool = False) -> None:
        super().__init__(debug)
        self._progress = progress
        self._cells = progress.add_task("cells", total=None)
        self._epochs = progress.add_task("", total=None, visible=False)

    def _write(self, line: str) -> None:
        # markup and highlighting off: names and messages are shown as they are
        self._progress.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """Move the upper bar and start the lower one again."""
        self._progress.update(self._cells, completed=number - 1, total=total)
        self._progress.reset(self._epochs, total=epochs, visible=epochs is not None)
        self._progress.update(self._epochs, description=_name(key))

    def epoch_finished(self, key: CellKey, epoch: EpochRecord, comments: int) -> None:
        """Move the lower bar; show loss and speed."""
        text = f"{_name(key)}  loss {epoch.train_loss:.4f}  {_speed(epoch, comments)}"
        self._progress.update(self._epochs, advance=1, description=text)

    def cell_finished(self, record: CellRecord) -> None:
        """Move the upper bar and leave one line above it."""
        self._progress.update(self._cells, advance=1)
        self._write(f"{_name(record.key)}: {_result(record)}")


@contextmanager
def feedback_for(quiet: bool, debug: bool) -> Iterator[Quiet]:
    """Choose by where stderr goes; everything but the leaderboard is written there."""
    if quiet:
        yield Quiet(debug)
    elif sys.stderr.isatty():
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        ) as progress:
            yield Live(progress, debug)
    else:
        yield Plain(debug)


def _name(key: CellKey) -> str:
    return f"{key.candidate} seed {key.seed}"


def _speed(epoch: EpochRecord, comments: int) -> str:
    return f"{comments / max(epoch.seconds, 1e-9):.0f} comments/s"


def _epoch(epoch: EpochRecord, comments: int) -> str:
    text = f"epoch {epoch.epoch}: loss {epoch.train_loss:.4f}, {_speed(epoch, comments)}"
    f1 = epoch.validation.get("micro_f1")
    return text if f1 is None else f"{text}, validation micro-F1 {f1:.3f}"


def _result(record: CellRecord) -> str:
    scores = record.metrics["0.5"]["test"]
    constant = "; predicts the same for every row" if record.constant else ""
    return (
        f"micro-F1 {scores['micro_f1']:.3f}, subset accuracy {scores['subset_accuracy']:.3f} "
        f"in {record.cost.train_seconds:.1f} s{constant}"
    )
