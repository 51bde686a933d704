"""The executor of a plan: how many cells it computes at once, and the cores and GPUs of each."""

import torch

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.benchmark.estimate import count_operations
from toxbench.benchmark.plan import Plan
from toxbench.executors.base import Executor
from toxbench.executors.local import InProcessExecutor, LocalExecutor
from toxbench.executors.ray.executor import RayExecutor
from toxbench.executors.resources import (
    THREADS,
    count_cores,
    gpu_names,
    memory_bytes,
    worker_environs,
)
from toxbench.executors.torchrun.executor import TorchrunExecutor
from toxbench.records import CellKey
from toxbench.settings import RunSettings
from toxbench.training.weights import parameter_counts

# Floating-point operations of about a minute of work, from which starting processes saves time.
_MIN_OPERATIONS = 2e13
_BYTES_PER_PROCESS = 1.5e9
_BYTES_PER_ROW = 1500  # of the table, with its tokens, probabilities and scores (results/README.md)
_BYTES_PER_PARAMETER = 20  # weights, gradients, two moments, and a margin


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
