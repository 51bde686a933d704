"""The work of a run, the machine that computes it, and the executor that divides it."""

import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heapreplace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean

import torch

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.benchmark.plan import Plan
from toxbench.data.tokenization import window_starts
from toxbench.executors.base import (
    THREADS,
    Executor,
    count_cores,
    gpu_names,
    memory_bytes,
    worker_environs,
)
from toxbench.executors.local import InProcessExecutor, LocalExecutor
from toxbench.executors.ray.executor import RayExecutor
from toxbench.executors.torchrun.executor import TorchrunExecutor
from toxbench.plugin.registry import Registry
from toxbench.records import CellKey, Environment, EpochRecord
from toxbench.settings import RunSettings, TrainSettings
from toxbench.store.manifest import CodeVersions, LoadedPlugin
from toxbench.training.device import Device
from toxbench.training.optimizer import num_evaluations
from toxbench.training.weights import parameter_counts

_CHARACTERS_PER_TOKEN = 4.5
_SPECIAL_TOKENS = 2
_MAX_SAMPLE_TEXTS = 10_000
# Floating-point operations of about a minute of work, from which starting processes saves time.
_MIN_OPERATIONS = 2e13
_BYTES_PER_PROCESS = 1.5e9
_BYTES_PER_ROW = 1500  # of the table, with its tokens, probabilities and scores (results/README.md)
_BYTES_PER_PARAMETER = 20  # weights, gradients, two moments, and a margin
_PACKAGES = ("toxbench", "torch", "transformers", "scikit-learn", "numpy", "pandas")


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


def executor_for(plan: Plan) -> Executor:
    """Return the executor for the cells of a plan."""
    if plan.run.coordinator is not None:
        return TorchrunExecutor(plan.run.coordinator)
    if runs_in_process(plan) and plan.settings.executor == "local":
        return InProcessExecutor()
    return _remote_executor(plan, num_workers(plan), threads_per_cell(plan), plan.cell_seconds)


def executor_for_trials(plan: Plan, folds: int) -> Executor:
    """Return the executor for the trials of a search, each with the time limit of ``folds`` cells.

    Trials run in this process one after the other, unless the settings request workers or a plugin
    of another distribution is loaded.
    """
    settings = plan.settings
    if _has_default_resources(settings) and not plan.run.registry.has_third_party_plugins:
        return InProcessExecutor()
    workers = settings.workers or 1
    threads = settings.cpus_per_cell or _threads_per_worker(plan, workers)
    seconds = None if plan.cell_seconds is None else plan.cell_seconds * folds
    return _remote_executor(plan, workers, threads, seconds)


def _has_default_resources(settings: RunSettings) -> bool:
    """Whether all settings of how a cell is computed have their defaults."""
    resources = (
        settings.workers,
        settings.ray_address,
        settings.cpus_per_cell,
        settings.gpus_per_cell,
    )
    return settings.executor == "local" and all(value is None for value in resources)


def _remote_executor(
    plan: Plan, workers: int, threads: int | None, seconds: float | None
) -> Executor:
    """Return an executor with processes of ``threads`` threads each; None lets torch decide."""
    settings, environ = plan.settings, plan.run.registry.environ
    if settings.executor == "local":
        environs = worker_environs(environ, workers, threads, _gpus(plan))
        return LocalExecutor(environs, seconds)
    cpus = threads or _torch_threads(plan)
    return RayExecutor(
        address=settings.ray_address,
        environ=environ,
        cpus=cpus,
        gpus=settings.gpus_per_cell or 1.0,
        max_tasks=settings.workers,
        local_cpus=max(count_cores(environ), workers * cpus),
        seconds=seconds,
    )


def runs_in_process(plan: Plan) -> bool:
    """Whether cells are computed in this process, one after the other.

    Only little work without plugins of other distributions is. Otherwise worker processes limit a
    crash, a hang or exhausted memory to one cell, and keep a plugin away from other candidates.
    """
    settings = plan.settings
    limits = (settings.workers, plan.cell_seconds, settings.cpus_per_cell, settings.gpus_per_cell)
    if (
        plan.run.registry.has_third_party_plugins
        or any(v is not None for v in limits)
        or len(_gpus(plan)) > 1
    ):
        return False
    return count_operations(plan, _backbone_cells(plan)) < _MIN_OPERATIONS


def num_workers(plan: Plan) -> int:
    """Return how many cells are computed at once; on CUDA, by default one for each GPU.

    Cells with one thread each at the same time take less time than cells with all threads one
    after the other: 1.3 times on two cores (results/README.md). The number follows from all cells
    of the plan, not from the missing ones, so that a resumed run has as many threads per cell and
    gives the same bytes.
    """
    settings = plan.settings
    if plan.processes > 1:
        return 1
    if settings.workers is not None:
        return settings.workers
    cells, gpus = _backbone_cells(plan), _gpus(plan)
    if gpus:
        return max(1, min(len(cells), int(len(gpus) / (settings.gpus_per_cell or 1.0))))
    on_cpu = all(plan.devices[candidate.title].kind == "cpu" for candidate, _ in cells)
    if not cells or not on_cpu or count_operations(plan, cells) < _MIN_OPERATIONS:
        return 1
    largest = max(_memory_bytes(candidate, len(plan.protocol.comments)) for candidate, _ in cells)
    by_cores = count_cores(plan.run.registry.environ) // (settings.cpus_per_cell or 1)
    return max(1, min(len(cells), by_cores, int(memory_bytes() / largest)))


def threads_per_cell(plan: Plan) -> int | None:
    """Divide the cores among the workers; None for a single one, so that torch decides."""
    return plan.settings.cpus_per_cell or _threads_per_worker(plan, num_workers(plan))


def _threads_per_worker(plan: Plan, workers: int) -> int | None:
    return max(1, count_cores(plan.run.registry.environ) // workers) if workers > 1 else None


def _torch_threads(plan: Plan) -> int:
    """Return torch's number of threads in this process, by default the physical cores."""
    environ = plan.run.registry.environ
    return count_cores(environ) if THREADS in environ else torch.get_num_threads()


def _gpus(plan: Plan) -> tuple[str, ...]:
    """Return the GPUs of this machine if backbones compute on them."""
    if not any(device.kind == "cuda" for device in plan.devices.values()):
        return ()
    return gpu_names(plan.run.registry.environ, torch.cuda.device_count())


def _backbone_cells(plan: Plan) -> list[tuple[BackboneCandidate, CellKey]]:
    return [(c, key) for c, key in plan.cells if isinstance(c, BackboneCandidate)]


def _memory_bytes(candidate: BackboneCandidate, rows: int) -> float:
    folder = candidate.weights.folder
    parameters = sum(parameter_counts(folder).values()) if folder is not None else 0
    return _BYTES_PER_PROCESS + _BYTES_PER_ROW * rows + _BYTES_PER_PARAMETER * parameters


def environment(device: Device) -> Environment:
    """Describe this machine and this code, without paths or the name of the user."""
    return Environment(
        device=device.kind,
        device_name=device.name,
        precision=device.precision,
        threads=torch.get_num_threads(),
        versions=package_versions(),
        commit=_git_commit(),
    )


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that scores may depend on."""
    return {"python": platform.python_version()} | dict(map(_version, _PACKAGES))


def _version(package: str) -> tuple[str, str]:
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, "not installed"


def _git_commit() -> str | None:
    try:
        process = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None


def describe_code(registry: Registry) -> CodeVersions:
    """Describe the imported plugins, and the packages that scores may depend on."""
    return CodeVersions(
        plugins=tuple(
            LoadedPlugin(name=name, distribution=distribution)
            for name, distribution in sorted(registry.imported_plugins.items())
        ),
        versions=package_versions(),
    )
