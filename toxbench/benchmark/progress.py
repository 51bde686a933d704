"""Callbacks with which a run or a search reports its progress, as lines and as bars."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from toxbench.evaluation.definitions import OBJECTIVES
from toxbench.executors.base import TaskError
from toxbench.records import CellKey, CellRecord, EpochRecord, TrialRecord
from toxbench.report.notes import MAX_CUT_SHARE
from toxbench.util.text import escape_line, escape_text, format_duration

WriteLine = Callable[[str, int], None]  # takes a printable line and its level in `logging`

BAR_COLUMNS: tuple[ProgressColumn, ...] = (
    TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
)  # fmt: skip
TIME_LEFT = TextColumn("{task.fields[time_left]}")
PREFIXES: Mapping[int, str] = {
    logging.ERROR: "toxbench: error: ",
    logging.WARNING: "toxbench: warning: ",
}
_LOGGER = logging.getLogger("toxbench")
_STYLES = {logging.ERROR: "red", logging.WARNING: "yellow"}
_MAX_WARNINGS = 3  # lines, unless verbose


@dataclass(frozen=True)
class Failure:
    """A cell without a result, and the reason."""

    key: CellKey
    error: TaskError

    def __str__(self) -> str:
        name = f"cell {self.key.candidate} seed {self.key.seed}"
        return f"{name} failed: {self.error.kind}: {self.error.reason}"


@dataclass(frozen=True)
class SearchProgress:
    """The state of a search; scores are micro average precision on inner validation rows.

    Attributes:
        backbone: that is tuned.
        phase: ``search`` or ``finalists``.
        finished: trials with a record, pruned and failed ones included.
        limit: number of finished trials to reach; None if only the budget limits them.
        pruned: finished trials that ended early.
        failed: finished trials with an error.
        best: highest score; None before the first.
        seconds_left: estimate; None if unknown.
    """

    backbone: str
    phase: str
    finished: int
    limit: int | None
    pruned: int
    failed: int
    best: float | None
    seconds_left: float | None


class Feedback:
    """Callbacks of a run; each does nothing unless it is overridden."""

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """A cell starts: ``number`` of ``total``, counted from 1; baselines have no epochs."""

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """An epoch over ``comments`` train rows ended; the run takes ``seconds_left`` more."""

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """A cell was stored; ``seconds_left`` is None if no epoch was measured."""

    def cell_failed(self, failure: Failure) -> None:
        """A cell has no result; the run continues."""

    def warn(self, message: str) -> None:
        """Report a warning of one line."""


class SearchFeedback:
    """Callbacks of a search; each does nothing unless it is overridden."""

    def trial_started(self, backbone: str, number: int, default: bool, epochs: int) -> None:
        """A trial of this process starts, with at most ``epochs`` epochs over all its folds."""

    def trial_epoch(self, number: int, score: float) -> None:
        """An epoch of a trial ended with this value of the objective."""

    def trial_finished(self, backbone: str, record: TrialRecord) -> None:
        """A trial of this process was stored."""

    def search_progress(self, progress: SearchProgress) -> None:
        """The search changed, in this worker or another one."""


class TuneFeedback(Feedback, SearchFeedback):
    """Callbacks of searches and of the cells at their end."""


def log_only(line: str, level: int) -> None:
    """Write nothing: the line is in the log."""


class TextProgress(TuneFeedback):
    """Logs a line for each event under the name ``toxbench``, and passes it to ``write``.

    The level of failures is ERROR, of warnings WARNING, of starts and epochs DEBUG, and of other
    lines INFO. An epoch that ends ``epoch_line_seconds`` after the line before has INFO as well.
    """

    epoch_line_seconds = 60.0

    def __init__(
        self,
        write: WriteLine = log_only,
        verbose: bool = False,
        debug: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._verbose = verbose
        self._debug = debug
        self._clock = clock
        self._last_line = clock()
        self._last_search_line = ""
        self._finished = 0
        self._total = 0

    def echo(self, text: str) -> None:
        """Report lines."""
        for line in text.splitlines():
            self._report(line)

    def warn(self, message: str) -> None:
        """Report one line."""
        self._report(message, logging.WARNING)

    def warn_all(self, messages: Sequence[str]) -> None:
        """Report each different warning, or the first two and how many follow."""
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
        """Note the number of cells, and report which one starts."""
        self._total = total
        self._report(f"[{number}/{total}] {_name(key)} starts", logging.DEBUG)

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """Report the loss and the speed of the epoch, and the time left for the run."""
        is_late = self._clock() - self._last_line >= self.epoch_line_seconds
        text = f"[{_name(key)}] {_epoch(epoch, comments)}{_after('; ', seconds_left)}"
        self._report(text, logging.INFO if is_late else logging.DEBUG)

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """Report the scores of the cell, and the time left for the run."""
        count = f"[{self._count_finished()}/{self._total}]"
        name = _name(record.key, record.title)
        self._report(f"{count} {name}: {_result(record)}{_after('; ', seconds_left)}")

    def cell_failed(self, failure: Failure) -> None:
        """Report why; with ``debug``, the traceback is written as well, but not logged."""
        self._count_finished()
        trace = f"\n{escape_text(failure.error.trace.rstrip())}" if self._debug else ""
        self._report(str(failure), logging.ERROR, trace)

    def trial_finished(self, backbone: str, record: TrialRecord) -> None:
        """Report the score of the trial."""
        self._report(_trial(backbone, record))

    def search_progress(self, progress: SearchProgress) -> None:
        """Report the state of the search, once for each number of finished trials."""
        text = f"[{progress.backbone}] {progress.phase}: {_progress(progress)}"
        if text.partition(";")[0] != self._last_search_line:
            self._last_search_line = text.partition(";")[0]
            self._report(text)

    def _count_finished(self) -> int:
        self._finished += 1
        return self._finished

    def _report(self, line: str, level: int = logging.INFO, details: str = "") -> None:
        """Log a line, and write it with details that are not logged."""
        printable = escape_line(line)
        if level > logging.DEBUG:
            self._last_line = self._clock()
        _LOGGER.log(level, "%s", printable)
        self._write(f"{printable}{details}", level)


class LiveProgress(TextProgress):
    """Shows a progress bar for all cells, and one for each cell that is being trained."""

    epoch_line_seconds = math.inf  # bars show the epochs

    def __init__(
        self, progress: Progress, write: WriteLine, verbose: bool = False, debug: bool = False
    ) -> None:
        super().__init__(write, verbose, debug)
        self._progress = progress
        self._cells = progress.add_task("cells", total=None, time_left="")
        self._epochs = progress.add_task("", total=None, visible=False, time_left="")
        self._bars: dict[CellKey, TaskID] = {}

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        """Show a bar for the cell if it has epochs."""
        super().cell_started(key, number, total, epochs)
        self._progress.update(self._cells, total=total)
        if epochs is not None:
            self._bars[key] = self._progress.add_task(_name(key), total=epochs, time_left="")

    def epoch_finished(
        self, key: CellKey, epoch: EpochRecord, comments: int, seconds_left: float | None
    ) -> None:
        """Advance the cell's bar; show loss, speed and the time left for the run."""
        super().epoch_finished(key, epoch, comments, seconds_left)
        text = f"{_name(key)}  loss {epoch.train_loss:.4f}  {_speed(epoch, comments)}"
        self._progress.update(self._bars[key], advance=1, description=text)
        self._progress.update(self._cells, time_left=_after("", seconds_left))

    def cell_finished(self, record: CellRecord, seconds_left: float | None) -> None:
        """Advance the upper bar and print one line above it."""
        self._progress.update(self._cells, time_left=_after("", seconds_left))
        self._finish_bar(record.key)
        super().cell_finished(record, None)  # the bar shows the time left

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
def terminal_progress(level: int, **options: bool) -> Iterator[LiveProgress]:
    """Show bars on stderr, a terminal, and above them the lines of a level or a higher one.

    ``options`` are those of `LiveProgress`.
    """
    console = Console(stderr=True)
    columns = (SpinnerColumn(), *BAR_COLUMNS, TimeElapsedColumn(), TIME_LEFT)

    def write(line: str, line_level: int) -> None:
        if line_level >= level:
            console.print(styled(line, line_level), highlight=False, soft_wrap=True)

    with Progress(*columns, console=console, transient=True) as progress:
        yield LiveProgress(progress, write, **options)


def styled(line: str, level: int) -> Text:
    """Return a line as it is, without markup, in the colour of its level."""
    return Text(f"{PREFIXES.get(level, '')}{line}", _STYLES.get(level, ""))


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
    return f"[{name}] {OBJECTIVES[record.metric]} {record.value:.4f}{reason}; {cost}"


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
