"""Where cells are computed, how many at once, and what each of them gets of this machine."""

import os
import sys
from collections.abc import Mapping
from ctypes.util import find_library
from pathlib import Path

from toxbench.benchmark.candidate import BackboneCandidate
from toxbench.benchmark.expected import operations
from toxbench.benchmark.plan import Plan
from toxbench.records import CellKey
from toxbench.training.weights import parameter_counts

# Starting processes pays from about a minute of work on (floating-point operations).
_WORTH_STARTING = 2e13
_BYTES_OF_A_PROCESS = 1.5e9
_BYTES_A_PARAMETER = 24  # weights, gradients, two moments, the best epoch's copy, and a margin
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def in_this_process(plan: Plan) -> bool:
    """Whether cells are computed here, one after the other: little work, and nobody else's code.

    Anything else gets worker processes: a crash, a hang or a system without memory then costs one
    cell, and what a plugin does to its process reaches no other candidate's numbers.
    """
    asked = plan.workers is not None or plan.cell_seconds is not None
    return not asked and not plan.has_foreign and operations(plan, _large(plan)) < _WORTH_STARTING


def worker_count(plan: Plan) -> int:
    """Return how many cells are computed at once.

    One thread for each cell, side by side, is faster than all threads for one cell: 1.3 times on
    two cores (results/README.md). What decides is the whole plan, and not what is missing of it:
    a run that is taken up again goes on with as many threads a cell, and so to the same bytes.
    """
    if plan.processes > 1:
        return 1
    if plan.workers is not None:
        return plan.workers
    cells = _large(plan)
    on_cpu = all(plan.devices[candidate.title].kind == "cpu" for candidate, _ in cells)
    if not cells or not on_cpu or operations(plan, cells) < _WORTH_STARTING:
        return 1
    largest = max(_bytes(candidate) for candidate, _ in cells)
    return max(1, min(len(cells), cores(plan.environ), int(_memory() / largest)))


def environ_of_a_worker(environ: Mapping[str, str], count: int) -> dict[str, str]:
    """Divide the cores among workers, one thread each at least; one alone gets all of them.

    Where tcmalloc is installed they allocate with it: it keeps at hand what torch frees each step,
    and saves 7 to 10 % of an epoch (results/README.md).
    """
    own = dict(environ)
    if count > 1:
        own["OMP_NUM_THREADS"] = str(max(1, cores(environ) // count))
    allocator = find_library("tcmalloc_minimal") if sys.platform == "linux" else None
    if allocator is not None:
        own.setdefault("LD_PRELOAD", allocator)
    return own


def cores(environ: Mapping[str, str]) -> int:
    """Return how many threads may compute at once: ``OMP_NUM_THREADS``, else this process's cores.

    Not torch's own count: a plugin may have changed that.
    """
    named = environ.get("OMP_NUM_THREADS", "")
    if named.isascii() and named.isdigit() and int(named) > 0:
        return int(named)
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _large(plan: Plan) -> list[tuple[BackboneCandidate, CellKey]]:
    """Return the cells that take more than seconds."""
    return [(c, key) for c, key in plan.cells if isinstance(c, BackboneCandidate)]


def _bytes(candidate: BackboneCandidate) -> float:
    folder = candidate.weights.folder
    parameters = sum(parameter_counts(folder).values()) if folder is not None else 0
    return _BYTES_OF_A_PROCESS + _BYTES_A_PARAMETER * parameters


def _memory() -> float:
    """Return the bytes of memory of this machine, or of the container that this runs in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text(encoding="ascii").strip() if _CGROUP.is_file() else "max"
    return float(whole if limit == "max" else min(whole, int(limit)))
