"""How many cells are computed at once, and what each of them gets of this machine."""

import os
from pathlib import Path

import torch

from toxbench.benchmark.candidate import BackboneCandidate
from toxbench.benchmark.expected import operations
from toxbench.benchmark.plan import Plan
from toxbench.training.weights import parameter_counts

# Starting processes pays from about a minute of work on (floating-point operations).
_WORTH_STARTING = 2e13
_BYTES_OF_A_PROCESS = 1.5e9
_BYTES_A_PARAMETER = 24  # weights, gradients, two moments, the best epoch's copy, and a margin
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def worker_count(plan: Plan) -> int:
    """Return how many processes compute cells; 1 means this one, with all threads.

    One thread for each cell, side by side, is faster than all threads for one cell: 1.3 times on
    two cores (results/README.md). What decides is the whole plan, and not what is missing of it:
    a run that is taken up again goes on with as many threads a cell, and so to the same bytes.
    """
    if plan.workers is not None:
        return plan.workers
    cells = [(c, key) for c, key in plan.cells if isinstance(c, BackboneCandidate)]
    on_cpu = all(plan.devices[candidate.title].kind == "cpu" for candidate, _ in cells)
    if not cells or not on_cpu or operations(plan, cells) < _WORTH_STARTING:
        return 1
    largest = max(_bytes(candidate) for candidate, _ in cells)
    return max(1, min(len(cells), torch.get_num_threads(), int(_memory() / largest)))


def threads_of_a_worker(workers: int) -> int:
    """Divide this process's threads among workers, one at least."""
    return max(1, torch.get_num_threads() // workers)


def _bytes(candidate: BackboneCandidate) -> float:
    folder = candidate.weights.folder
    parameters = sum(parameter_counts(folder).values()) if folder is not None else 0
    return _BYTES_OF_A_PROCESS + _BYTES_A_PARAMETER * parameters


def _memory() -> float:
    """Return the bytes of memory of this machine, or of the container that this runs in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text(encoding="ascii").strip() if _CGROUP.is_file() else "max"
    return float(whole if limit == "max" else min(whole, int(limit)))
