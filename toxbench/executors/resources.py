"""What this machine has, and what each of several processes gets of it."""

import os
import sys
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from pathlib import Path

THREADS, GPUS = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def cores(environ: Mapping[str, str]) -> int:
    """Return how many threads may compute at once: ``OMP_NUM_THREADS``, else this process's cores.

    Not torch's own count: a plugin may have changed that.
    """
    named = environ.get(THREADS, "")
    if named.isascii() and named.isdigit() and int(named) > 0:
        return int(named)
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory() -> float:
    """Return the bytes of memory of this machine, or of the container that this runs in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text(encoding="ascii").strip() if _CGROUP.is_file() else "max"
    return float(whole if limit == "max" else min(whole, int(limit)))


def gpu_names(environ: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Return what ``CUDA_VISIBLE_DEVICES`` calls the CUDA devices that this process sees.

    Args:
        environ: of this process.
        count: of devices, by CUDA.
    """
    named = [name.strip() for name in environ.get(GPUS, "").split(",") if name.strip()]
    return tuple(named[:count] or map(str, range(count)))


def environ_of_a_worker(environ: Mapping[str, str], threads: int | None) -> dict[str, str]:
    """Return the environment of a process that computes with so many threads; None: torch's choice.

    Where tcmalloc is installed it allocates with it: it keeps at hand what torch frees each step,
    and saves 7 to 10 % of an epoch (results/README.md).
    """
    own = dict(environ) if threads is None else {**environ, THREADS: str(threads)}
    allocator = find_library("tcmalloc_minimal") if sys.platform == "linux" else None
    if allocator is not None:
        own.setdefault("LD_PRELOAD", allocator)
    return own


def environs_of_workers(
    environ: Mapping[str, str], count: int, threads: int | None, gpus: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Return the environments of processes side by side; each sees one GPU, where there are some.

    With more processes than GPUs, they take turns in the order of their places.
    """
    own = environ_of_a_worker(environ, threads)
    if not gpus:
        return [own] * count
    return [own | {GPUS: gpus[place % len(gpus)]} for place in range(count)]
