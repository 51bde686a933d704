"""Where cells are computed, how many at once, and what each of them gets."""

import torch

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.benchmark.estimate import operations
from toxbench.benchmark.plan import Plan
from toxbench.benchmark.validate import Where
from toxbench.executors.base import Executor
from toxbench.executors.local import InProcessExecutor, LocalExecutor
from toxbench.executors.ray.executor import RayExecutor
from toxbench.executors.resources import THREADS, cores, environs_of_workers, gpu_names, memory
from toxbench.records import CellKey
from toxbench.training.weights import parameter_counts

# Starting processes pays from about a minute of work on (floating-point operations).
_WORTH_STARTING = 2e13
_BYTES_OF_A_PROCESS = 1.5e9
_BYTES_A_ROW = 1500  # of the table, with its tokens, probabilities and scores (results/README.md)
_BYTES_A_PARAMETER = 24  # weights, gradients, two moments, the best epoch's copy, and a margin


def executor_for(plan: Plan) -> Executor:
    """Return what computes the cells of a plan."""
    if runs_in_process(plan) and plan.where.executor == "local":
        return InProcessExecutor()
    return _remote_executor(plan, num_workers(plan), threads_of_a_cell(plan), plan.cell_seconds)


def executor_for_trials(plan: Plan, folds: int) -> Executor:
    """Return what trains the trials of a search; each may take as long as ``folds`` cells.

    They are trained in this process one after the other, unless more at once were asked for, or
    somebody else's code is loaded.
    """
    asked = plan.workers is not None or plan.where != Where()
    if not asked and not plan.has_foreign:
        return InProcessExecutor()
    threads = plan.where.cpus_per_cell or _threads_per_worker(plan, plan.workers or 1)
    seconds = None if plan.cell_seconds is None else plan.cell_seconds * folds
    return _remote_executor(plan, plan.workers or 1, threads, seconds)


def _remote_executor(
    plan: Plan, count: int, threads: int | None, seconds: float | None
) -> Executor:
    """Return what computes in other processes, with so many threads each."""
    if plan.where.executor == "local":
        environs = environs_of_workers(plan.environ, count, threads, _gpus(plan))
        return LocalExecutor(environs, seconds)
    cpus = threads or _threads_of_torch(plan)
    return RayExecutor(
        address=plan.where.ray_address,
        environ=plan.environ,
        cpus=cpus,
        gpus=plan.where.gpus_per_cell or 1.0,
        at_once=plan.workers,
        local_cpus=max(cores(plan.environ), count * cpus),
        seconds=seconds,
    )


def runs_in_process(plan: Plan) -> bool:
    """Whether cells are computed here, one after the other: little work, and nobody else's code.

    Anything else gets worker processes: a crash, a hang or a system without memory then costs one
    cell, and what a plugin does to its process reaches no other candidate's numbers.
    """
    asked = (plan.workers, plan.cell_seconds, plan.where.cpus_per_cell, plan.where.gpus_per_cell)
    if plan.has_foreign or any(value is not None for value in asked) or len(_gpus(plan)) > 1:
        return False
    return operations(plan, _large(plan)) < _WORTH_STARTING


def num_workers(plan: Plan) -> int:
    """Return how many cells are computed at once: on CUDA one for each GPU, unless it was asked.

    One thread for each cell, side by side, is faster than all threads for one cell: 1.3 times on
    two cores (results/README.md). What decides is the whole plan, and not what is missing of it:
    a run that is taken up again goes on with as many threads a cell, and so to the same bytes.
    """
    if plan.processes > 1:
        return 1
    if plan.workers is not None:
        return plan.workers
    cells, gpus = _large(plan), _gpus(plan)
    if gpus:
        return max(1, min(len(cells), int(len(gpus) / (plan.where.gpus_per_cell or 1.0))))
    on_cpu = all(plan.devices[candidate.title].kind == "cpu" for candidate, _ in cells)
    if not cells or not on_cpu or operations(plan, cells) < _WORTH_STARTING:
        return 1
    largest = max(_bytes(candidate, len(plan.protocol.comments)) for candidate, _ in cells)
    at_once = cores(plan.environ) // (plan.where.cpus_per_cell or 1)
    return max(1, min(len(cells), at_once, int(memory() / largest)))


def threads_of_a_cell(plan: Plan) -> int | None:
    """Divide the cores among workers, one thread each at least; None: one alone, as torch likes."""
    return plan.where.cpus_per_cell or _threads_per_worker(plan, num_workers(plan))


def _threads_per_worker(plan: Plan, count: int) -> int | None:
    return max(1, cores(plan.environ) // count) if count > 1 else None


def _threads_of_torch(plan: Plan) -> int:
    """Return with how many threads torch computes here: unset, it takes the physical cores."""
    return cores(plan.environ) if THREADS in plan.environ else torch.get_num_threads()


def _gpus(plan: Plan) -> tuple[str, ...]:
    """Return the GPUs of this machine, if backbones compute on them."""
    if not any(device.kind == "cuda" for device in plan.devices.values()):
        return ()
    return gpu_names(plan.environ, torch.cuda.device_count())


def _large(plan: Plan) -> list[tuple[BackboneCandidate, CellKey]]:
    """Return the cells that take more than seconds."""
    return [(c, key) for c, key in plan.cells if isinstance(c, BackboneCandidate)]


def _bytes(candidate: BackboneCandidate, rows: int) -> float:
    folder = candidate.weights.folder
    parameters = sum(parameter_counts(folder).values()) if folder is not None else 0
    return _BYTES_OF_A_PROCESS + _BYTES_A_ROW * rows + _BYTES_A_PARAMETER * parameters
