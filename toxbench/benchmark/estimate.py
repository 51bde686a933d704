"""The work of a run in floating-point operations, and the time that the rest of it takes."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heapreplace
from pathlib import Path
from statistics import fmean

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.benchmark.plan import Plan
from toxbench.data.tokenization import window_starts
from toxbench.records import CellKey, EpochRecord
from toxbench.settings import TrainSettings
from toxbench.training.optimizer import num_evaluations
from toxbench.training.weights import parameter_counts

_CHARACTERS_PER_TOKEN = 4.5
_SPECIAL_TOKENS = 2
_MAX_SAMPLE_TEXTS = 10_000


class TimeLeft:
    """Estimates how long the rest of a run takes, from the epochs that it has finished.

    An operation takes as long on average in the remaining cells as in the finished epochs. Each
    remaining cell starts on the worker that is free first.
    """

    def __init__(
        self, operations: Mapping[CellKey, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start without a measured epoch.

        Args:
            operations: of each cell to compute, in the order in which cells start.
            clock: returns seconds.
        """
        self._operations = operations
        self._clock = clock
        self._remaining = dict(operations)
        self._epochs: dict[CellKey, int] = {}
        self._last_event: dict[CellKey, float] = {}  # of the cells that are being computed
        self._setup: dict[CellKey, float] = {}
        self._max_running = 1
        self._measured_seconds = self._measured_operations = 0.0

    def start(self, key: CellKey, epochs: int | None) -> None:
        """Note that a cell starts; a baseline has no epochs and counts as no work.

        The number of workers is the number of cells that ran at once so far.
        """
        if epochs is not None:
            self._epochs[key] = epochs
            self._last_event[key] = self._clock()
            self._max_running = max(self._max_running, len(self._last_event))

    def finish_epoch(self, key: CellKey, record: EpochRecord) -> None:
        """Note an epoch of a cell.

        The time before the first epoch, in which the process starts and loads the weights, counts
        when the cell is finished. The epochs that a resumed training reports from its checkpoint
        count with their recorded seconds.
        """
        seconds = max(self._since_last_event(key), record.seconds)
        if record.epoch == 1:
            self._setup[key] = seconds - record.seconds
            seconds = record.seconds
        self._measured_seconds += seconds
        total, epochs = self._operations[key], self._epochs[key]
        self._measured_operations += total / epochs
        self._remaining[key] = total * (1 - record.epoch / epochs)

    def finish(self, key: CellKey) -> None:
        """Note that a cell is stored."""
        if key in self._last_event:
            self._measured_seconds += self._since_last_event(key) + self._setup.pop(key, 0.0)
        self.drop(key)

    def drop(self, key: CellKey) -> None:
        """Note that a cell failed; the time after its last epoch is not counted."""
        self._remaining.pop(key, None)
        self._last_event.pop(key, None)

    def seconds(self) -> float | None:
        """Return the estimate; None before the first epoch."""
        if not self._measured_operations:
            return None
        workers = [0.0] * self._max_running
        for remaining in self._remaining.values():
            heapreplace(workers, workers[0] + remaining)
        return max(workers) * self._measured_seconds / self._measured_operations

    def _since_last_event(self, key: CellKey) -> float:
        now = self._clock()
        seconds = now - self._last_event[key]
        self._last_event[key] = now
        return seconds


def count_operations(plan: Plan, cells: Iterable[tuple[BackboneCandidate, CellKey]]) -> float:
    """Count the floating-point operations of cells; those without weights on the disk count 0.

    Training costs 6 operations per parameter and token and scoring 2, without the parameters of
    embedding tables (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
    """
    return sum(
        body_parameters(candidate.weights.folder)
        * _operations_per_parameter(plan, candidate, key.fold)
        for candidate, key in cells
        if candidate.weights.folder is not None
    )


def body_parameters(folder: Path) -> int:
    """Count a checkpoint's parameters without embedding tables; raises `StorageError`."""
    counts = parameter_counts(folder)
    return sum(count for name, count in counts.items() if "embeddings" not in name)


def _operations_per_parameter(plan: Plan, candidate: BackboneCandidate, fold: int) -> float:
    """Count the operations of one cell for each parameter."""
    settings = candidate.settings
    split, texts = plan.protocol.folds[fold], plan.protocol.comments.texts
    epochs = settings.epochs if candidate.has_epochs else 0
    evaluations = num_evaluations(settings, len(split.train)) if candidate.has_epochs else 0
    trained_rows = len(split.train) * epochs
    # The start of the head scores the train rows once more.
    scored_rows = len(split.validation) * evaluations + len(split.train) + len(texts)
    return _tokens_per_row(texts, settings) * (6 * trained_rows + 2 * scored_rows)


def _tokens_per_row(texts: Sequence[str], settings: TrainSettings) -> float:
    """Estimate the mean number of tokens of a row, all windows counted."""
    limit = settings.max_length
    if settings.padding == "max_length":
        return limit * windows_per_row(texts, settings)
    repeated = limit // 4 + _SPECIAL_TOKENS  # by each window but the first
    return fmean(
        min(length + (windows - 1) * repeated, windows * limit)
        for length, windows in _sample(texts, settings)
    )


def windows_per_row(texts: Sequence[str], settings: TrainSettings) -> float:
    """Estimate the mean number of windows of a row, which are the passes that it takes."""
    return fmean(windows for _, windows in _sample(texts, settings))


def _sample(texts: Sequence[str], settings: TrainSettings) -> Iterator[tuple[float, int]]:
    """Estimate the tokens and the windows of at most ``_MAX_SAMPLE_TEXTS`` texts."""
    room, overlap = settings.max_length - _SPECIAL_TOKENS, settings.max_length // 4
    for text in texts[:: -(-len(texts) // _MAX_SAMPLE_TEXTS)]:
        length = len(text) / _CHARACTERS_PER_TOKEN
        has_windows = settings.long_text == "windows"
        windows = len(window_starts(int(length), room, overlap)) if has_windows else 1
        yield length + _SPECIAL_TOKENS, windows
