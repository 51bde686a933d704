"""How a run is followed: a live display on a terminal, plain lines elsewhere, or nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from toxbench.benchmark.feedback import Failure, SearchProgress
from toxbench.cli.console import Style, echo, has_colour
from toxbench.records import CellKey, CellRecord, EpochRecord, TrialRecord
from toxbench.util.text import escape_line, format_duration

_STYLES: dict[Style, str] = {"": "", "error": "red", "warning": "yellow", "strong": "bold"}


class NullProgress:
    """Only failures are told."""

    def __init__(self, debug: bool = False) -> None:
        self._debug = debug

    def echo(self, text: str) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """Say nothing."""

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """Say nothing."""

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """Say nothing."""

    def cell_failed(self, failure: Failure) -> None:
        """Write one line, and the traceback if it was asked for."""
        if self._debug:
            echo(failure.fault.trace.rstrip("\n"), err=True)
        self._write(f"toxbench: error: {failure}", "error")

    def trial_started(self, backbone: str, number: int, default: bool, epochs: int) -> None:
        """Say nothing."""

    def trial_epoch(self, number: int, epoch: EpochRecord) -> None:
        """Say nothing."""

    def trial_finished(self, backbone: str, record: TrialRecord) -> None:
        """Say nothing: a failed trial is part of a search, and its record says why."""

    def search_progress(self, progress: SearchProgress) -> None:
        """Say nothing."""

    def _write(self, line: str, style: Style = "") -> None:
        echo(escape_line(line), err=True, style=style)


class LogProgress(NullProgress):
    """One line an event, for logs and pipes."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._told = ""

    def echo(self, text: str) -> None:
        """Write some lines."""
        for line in text.splitlines():
            self._write(line)

    def warn(self, message: str) -> None:
        """Write one line."""
        self._write(f"toxbench: warning: {message}", "warning")

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """Write which cell begins."""
        self._write(f"[{number}/{total}] {_name(key)}")

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """Write the loss and the speed of the epoch, and the time left for the run."""
        self._write(f"[{_name(key)}] {_epoch(epoch, comments)}{_after('; ', seconds_left)}")

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """Write the scores of the cell, and the time left for the run."""
        self._write(f"[{_name(record.key)}] {_result(record)}{_after('; ', seconds_left)}")

    def trial_finished(self, backbone: str, record: TrialRecord) -> None:
        """Write how the trial went."""
        self._write(_trial(backbone, record))

    def search_progress(self, progress: SearchProgress) -> None:
        """Write how far the search is, once for each number of finished trials."""
        text = f"[{progress.backbone}] {progress.phase}: {_progress(progress)}"
        if text.partition(";")[0] != self._told:
            self._told = text.partition(";")[0]
            self._write(text)


class LiveProgress(LogProgress):
    """A progress display with one bar over all cells and one over the epochs of each at work."""

    def __init__(self, progress: Progress, debug: bool = False) -> None:
        super().__init__(debug)
        self._progress = progress
        self._cells = progress.add_task("cells", total=None, time_left="")
        self._epochs = progress.add_task("", total=None, visible=False, time_left="")
        self._at_work: dict[CellKey, TaskID] = {}

    def _write(self, line: str, style: Style = "") -> None:
        # markup and highlighting off: names and messages are shown as they are
        self._progress.console.print(
            escape_line(line), markup=False, emoji=False, highlight=False, soft_wrap=True,
            style=_STYLES[style] if has_colour(err=True) else None,
        )  # fmt: skip

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """Show a bar of its own, if it has epochs."""
        self._progress.update(self._cells, total=total)
        if epochs is not None:
            self._at_work[key] = self._progress.add_task(_name(key), total=epochs, time_left="")

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """Move the cell's bar; show loss, speed and the time left for the run."""
        text = f"{_name(key)}  loss {epoch.train_loss:.4f}  {_speed(epoch, comments)}"
        self._progress.update(self._at_work[key], advance=1, description=text)
        self._progress.update(self._cells, time_left=_after("", seconds_left))

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """Move the upper bar and leave one line above it."""
        self._progress.update(self._cells, time_left=_after("", seconds_left))
        self._over(record.key)
        self._write(f"{_name(record.key)}: {_result(record)}")

    def cell_failed(self, failure: Failure) -> None:
        """Move the upper bar and say why."""
        self._over(failure.key)
        super().cell_failed(failure)

    def _over(self, key: CellKey) -> None:
        self._progress.update(self._cells, advance=1)
        if key in self._at_work:
            self._progress.remove_task(self._at_work.pop(key))

    def trial_started(self, backbone: str, number: int, default: bool, epochs: int) -> None:
        """Start the lower bar again."""
        settings = " (default settings)" if default else ""
        self._progress.reset(self._epochs, total=epochs, visible=True)
        self._progress.update(self._epochs, description=f"trial {number}{settings}")

    def trial_epoch(self, number: int, epoch: EpochRecord) -> None:
        """Move the lower bar; show the score."""
        score = epoch.validation["micro_average_precision"]
        text = f"trial {number}  average precision {score:.3f}"
        self._progress.update(self._epochs, advance=1, description=text)

    def search_progress(self, progress: SearchProgress) -> None:
        """Move the upper bar."""
        text = f"{progress.backbone} {progress.phase}: {_progress(progress)}"
        self._progress.update(
            self._cells, completed=progress.finished, total=progress.wanted, description=text
        )


@contextmanager
def feedback_for(quiet: bool, debug: bool) -> Iterator[NullProgress]:
    """Choose by where stderr goes; everything but the leaderboard is written there."""
    if quiet:
        yield NullProgress(debug)
    elif sys.stderr.isatty():
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[time_left]}"),
            console=Console(stderr=True),
            transient=True,
        ) as progress:
            yield LiveProgress(progress, debug)
    else:
        yield LogProgress(debug)


def _name(key: CellKey) -> str:
    fold = f" fold {key.fold}" if key.fold else ""
    return f"{key.candidate}{fold} seed {key.seed}"


def _trial(backbone: str, record: TrialRecord) -> str:
    """Write one line about a trial that ended."""
    name = f"{backbone} trial {record.number}{' (default settings)' if record.is_default else ''}"
    cost = f"{record.epochs} epochs, {record.seconds:.1f} s"
    if record.value is None:
        return f"[{name}] {record.state}: {record.reason}; {cost}"
    reason = f" ({record.reason})" if record.reason else ""
    return f"[{name}] average precision {record.value:.4f}{reason}; {cost}"


def _progress(progress: SearchProgress) -> str:
    done = f"{progress.finished} of {progress.wanted}" if progress.wanted else progress.finished
    text = f"{done} trials, {progress.pruned} pruned, {progress.failed} failed"
    if progress.best is not None:
        text += f"; best {progress.best:.4f}"
    return text + _after("; ", progress.seconds_left)


def _after(separator: str, seconds_left: float | None) -> str:
    """Write the time left, or nothing if it is unknown or zero."""
    return f"{separator}about {format_duration(seconds_left)} left" if seconds_left else ""


def _speed(epoch: EpochRecord, comments: int) -> str:
    return f"{comments / max(epoch.seconds, 1e-9):.0f} comments/s"


def _epoch(epoch: EpochRecord, comments: int) -> str:
    when = f"epoch {epoch.epoch}" if epoch.step is None else f"step {epoch.step}"
    text = f"{when}: loss {epoch.train_loss:.4f}, {_speed(epoch, comments)}"
    f1 = epoch.validation.get("micro_f1")
    return text if f1 is None else f"{text}, validation micro-F1 {f1:.3f}"


def _result(record: CellRecord) -> str:
    scores = record.metrics["0.5"]["test"]
    constant = "; predicts the same for every row" if record.has_constant_predictions else ""
    small = f"; memory ran out, trained by {record.micro_batch}" if record.micro_batch else ""
    return (
        f"micro-F1 {scores['micro_f1']:.3f}, subset accuracy {scores['subset_accuracy']:.3f} "
        f"in {record.cost.train_seconds:.1f} s{constant}{small}"
    )
