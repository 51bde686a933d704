"""Report the progress of a run: bars on a terminal, lines in a log, or nothing."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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

from toxbench.benchmark.feedback import Failure, SearchProgress, TuneFeedback
from toxbench.cli.console import Style, echo, has_colour
from toxbench.records import CellKey, CellRecord, EpochRecord, TrialRecord
from toxbench.report.notes import MAX_CUT_SHARE
from toxbench.util.text import escape_line, format_duration

_STYLES: dict[Style, str] = {"": "", "error": "red", "warning": "yellow", "strong": "bold"}


_MAX_WARNINGS = 3  # lines, unless --verbose
_EPOCH_LINE_SECONDS = 60.0  # since the line before, unless --verbose


class QuietProgress(TuneFeedback):
    """Reports failures only."""

    def __init__(self, debug: bool = False) -> None:
        self._debug = debug

    def echo(self, text: str) -> None:
        """Print nothing."""

    def warn_all(self, messages: Sequence[str]) -> None:
        """Print nothing."""

    def cell_failed(self, failure: Failure) -> None:
        """Print one line, and with --debug the traceback."""
        if self._debug:
            echo(failure.error.trace.rstrip("\n"), err=True)
        self._write(f"toxbench: error: {failure}", "error")

    def _write(self, line: str, style: Style = "") -> None:
        echo(escape_line(line), err=True, style=style)


class LogProgress(QuietProgress):
    """Prints a line for each finished cell, for logs and pipes.

    A line for an epoch is printed if none was printed for a minute, or with --verbose.
    """

    def __init__(
        self,
        debug: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(debug)
        self._verbose = verbose
        self._clock = clock
        self._last_line = clock()
        self._last_search_line = ""
        self._finished = 0
        self._total = 0

    def echo(self, text: str) -> None:
        """Print lines."""
        for line in text.splitlines():
            self._write(line)

    def warn(self, message: str) -> None:
        """Print one line."""
        self._write(f"toxbench: warning: {message}", "warning")

    def warn_all(self, messages: Sequence[str]) -> None:
        """Print each different warning, or the first two and how many follow."""
        different = list(dict.fromkeys(messages))
        if self._verbose or len(different) <= _MAX_WARNINGS:
            shown, hidden = different, 0
        else:
            shown = different[: _MAX_WARNINGS - 1]
            hidden = len(different) - len(shown)
        for message in shown:
            self.warn(message)
        if hidden:
            self.warn(f"{hidden} more warnings; --verbose prints them")

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """Note the number of cells; with --verbose, print which one starts."""
        self._total = total
        if self._verbose:
            self._write(f"[{number}/{total}] {_name(key)} starts")

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """Print the loss and the speed of the epoch, and the time left for the run."""
        if self._verbose or self._clock() - self._last_line >= _EPOCH_LINE_SECONDS:
            self._write(f"[{_name(key)}] {_epoch(epoch, comments)}{_after('; ', seconds_left)}")

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """Print the scores of the cell, and the time left for the run."""
        count = f"[{self._count_finished()}/{self._total}]"
        name = _name(record.key, record.title)
        text = f"{count} {name}: {_result(record)}{_after('; ', seconds_left)}"
        self._write(text)

    def cell_failed(self, failure: Failure) -> None:
        """Print why."""
        self._count_finished()
        super().cell_failed(failure)

    def trial_finished(self, backbone: str, record: TrialRecord) -> None:
        """Print the score of the trial."""
        self._write(_trial(backbone, record))

    def search_progress(self, progress: SearchProgress) -> None:
        """Print the state of the search, once for each number of finished trials."""
        text = f"[{progress.backbone}] {progress.phase}: {_progress(progress)}"
        if text.partition(";")[0] != self._last_search_line:
            self._last_search_line = text.partition(";")[0]
            self._write(text)

    def _count_finished(self) -> int:
        self._finished += 1
        return self._finished

    def _write(self, line: str, style: Style = "") -> None:
        self._last_line = self._clock()
        super()._write(line, style)


class LiveProgress(LogProgress):
    """Shows a progress bar for all cells, and one for each cell that is being trained."""

    def __init__(self, progress: Progress, debug: bool = False, verbose: bool = False) -> None:
        super().__init__(debug, verbose)
        self._progress = progress
        self._cells = progress.add_task("cells", total=None, time_left="")
        self._epochs = progress.add_task("", total=None, visible=False, time_left="")
        self._bars: dict[CellKey, TaskID] = {}

    def _write(self, line: str, style: Style = "") -> None:
        # markup and highlighting off: names and messages are shown as they are
        self._progress.console.print(
            escape_line(line), markup=False, emoji=False, highlight=False, soft_wrap=True,
            style=_STYLES[style] if has_colour(err=True) else None,
        )  # fmt: skip

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """Show a bar for the cell if it has epochs."""
        self._progress.update(self._cells, total=total)
        if epochs is not None:
            self._bars[key] = self._progress.add_task(_name(key), total=epochs, time_left="")

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """Advance the cell's bar; show loss, speed and the time left for the run."""
        text = f"{_name(key)}  loss {epoch.train_loss:.4f}  {_speed(epoch, comments)}"
        self._progress.update(self._bars[key], advance=1, description=text)
        self._progress.update(self._cells, time_left=_after("", seconds_left))

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """Advance the upper bar and print one line above it."""
        self._progress.update(self._cells, time_left=_after("", seconds_left))
        self._finish_bar(record.key)
        self._write(f"{_name(record.key, record.title)}: {_result(record)}")

    def cell_failed(self, failure: Failure) -> None:
        """Advance the upper bar and print why."""
        self._finish_bar(failure.key)
        super().cell_failed(failure)

    def _finish_bar(self, key: CellKey) -> None:
        self._progress.update(self._cells, advance=1)
        if key in self._bars:
            self._progress.remove_task(self._bars.pop(key))

    def trial_started(self, backbone: str, number: int, default: bool, epochs: int) -> None:
        """Reset the lower bar."""
        settings = " (default settings)" if default else ""
        self._progress.reset(self._epochs, total=epochs, visible=True)
        self._progress.update(self._epochs, description=f"trial {number}{settings}")

    def trial_epoch(self, number: int, score: float) -> None:
        """Advance the lower bar; show the score."""
        text = f"trial {number}  score {score:.3f}"
        self._progress.update(self._epochs, advance=1, description=text)

    def search_progress(self, progress: SearchProgress) -> None:
        """Advance the upper bar."""
        text = f"{progress.backbone} {progress.phase}: {_progress(progress)}"
        self._progress.update(
            self._cells, completed=progress.finished, total=progress.limit, description=text
        )


@contextmanager
def progress_for(values: Mapping[str, Any]) -> Iterator[QuietProgress]:
    """Yield the progress for the options of a command; it is printed on stderr."""
    debug, verbose = values["debug"], values["verbose"]
    if values["quiet"] or values["format_name"] is not None:
        yield QuietProgress(debug)
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
            yield LiveProgress(progress, debug, verbose)
    else:
        yield LogProgress(debug, verbose)


def _name(key: CellKey, title: str = "") -> str:
    fold = f" fold {key.fold}" if key.fold else ""
    return f"{title or key.candidate}{fold} seed {key.seed}"


def _trial(backbone: str, record: TrialRecord) -> str:
    """Describe a finished trial in one line."""
    name = f"{backbone} trial {record.number}{' (default settings)' if record.is_default else ''}"
    cost = f"{record.epochs} epochs, {record.seconds:.1f} s"
    if record.value is None:
        return f"[{name}] {record.state}: {record.reason}; {cost}"
    reason = f" ({record.reason})" if record.reason else ""
    return f"[{name}] average precision {record.value:.4f}{reason}; {cost}"


def _progress(progress: SearchProgress) -> str:
    limit = f" of {progress.limit}" if progress.limit else ""
    text = f"{progress.finished}{limit} trials, {progress.pruned} pruned, {progress.failed} failed"
    if progress.best is not None:
        text += f"; best {progress.best:.4f}"
    return text + _after("; ", progress.seconds_left)


def _after(separator: str, seconds_left: float | None) -> str:
    """Return the time left, or "" if it is unknown or zero."""
    return f"{separator}about {format_duration(seconds_left)} left" if seconds_left else ""


def _speed(epoch: EpochRecord, comments: int) -> str:
    return f"{comments / max(epoch.seconds, 1e-9):.0f} comments/s"


def _epoch(epoch: EpochRecord, comments: int) -> str:
    position = f"epoch {epoch.epoch}" if epoch.step is None else f"step {epoch.step}"
    text = f"{position}: loss {epoch.train_loss:.4f}, {_speed(epoch, comments)}"
    f1 = epoch.validation.get("micro_f1")
    return text if f1 is None else f"{text}, validation micro-F1 {f1:.3f}"


def _result(record: CellRecord) -> str:
    scores = record.metrics["0.5"]["test"]
    constant = "; the same prediction for every row" if record.has_constant_predictions else ""
    small = (
        f"; memory ran out, {record.micro_batch} comments a forward pass"
        if record.micro_batch
        else ""
    )
    share = record.cut_token_share or 0.0
    cut = f"; {share:.0%} of the tokens cut at max_length" if share > MAX_CUT_SHARE else ""
    return (
        f"micro-F1 {scores['micro_f1']:.3f}, subset accuracy {scores['subset_accuracy']:.3f} "
        f"in {record.cost.train_seconds:.1f} s{constant}{small}{cut}"
    )
