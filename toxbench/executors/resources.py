"""Cores, memory and GPUs of this machine, and the environment of processes that share them."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from pathlib import Path

THREADS, GPUS = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def count_cores(environ: Mapping[str, str]) -> int:
    """Return how many threads can compute at once: ``OMP_NUM_THREADS``, else this process's cores.

    Not torch's number of threads, which a plugin may have changed.
    """
    value = environ.get(THREADS, "")
    if value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_bytes() -> float:
    """Return the memory of this machine, or the limit of the container of this process.

    Infinity on Windows, whose standard library does not report it.
    """
    if sys.platform == "win32":
        return math.inf
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text(encoding="ascii").strip() if _CGROUP.is_file() else "max"
    return float(total if limit == "max" else min(total, int(limit)))


def gpu_names(environ: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Return the names in ``CUDA_VISIBLE_DEVICES`` of this process's ``count`` CUDA devices."""
    names = [name.strip() for name in environ.get(GPUS, "").split(",") if name.strip()]
    return tuple(names[:count] or map(str, range(count)))


def worker_environ(environ: Mapping[str, str], threads: int | None) -> dict[str, str]:
    """Return the environment of a worker process; without ``threads``, torch decides.

    If tcmalloc is installed, the worker uses it: it reuses memory that torch frees in each step,
    and saves 7 to 10 % of an epoch (results/README.md).
    """
    worker = dict(environ) if threads is None else {**environ, THREADS: str(threads)}
    allocator = find_library("tcmalloc_minimal") if sys.platform == "linux" else None
    if allocator is not None:
        worker.setdefault("LD_PRELOAD", allocator)
    return worker


def worker_environs(
    environ: Mapping[str, str], count: int, threads: int | None, gpus: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Return the environments of ``count`` workers that run at once.

    If there are GPUs, each worker sees one; more workers than GPUs share them in turn.
    """
    worker = worker_environ(environ, threads)
    if not gpus:
        return [worker] * count
    return [worker | {GPUS: gpus[number % len(gpus)]} for number in range(count)]
