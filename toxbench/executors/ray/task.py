"""What runs on a node of a Ray cluster: a shell around the same worker process as elsewhere."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from toxbench.errors import StorageError
from toxbench.executors.base import RunnerConfig, TaskError, TaskSpec
from toxbench.executors.ray.messages import (
    Begin,
    Ended,
    Missing,
    RefusedError,
    Started,
    TaskEnvironment,
    Tell,
)
from toxbench.executors.ray.transfer import folder_here, keep_sent, take_files
from toxbench.executors.resources import environ_of_a_worker
from toxbench.executors.worker import Progress, WorkerProcess
from toxbench.util.atomic import cache_folder

# What names a place of one machine, or is set by Ray for each.
_OF_A_MACHINE = (
    "LD_", "PYTHON", "RAY_", "XDG_", "TMPDIR", "TOXBENCH_CACHE", "CUDA_VISIBLE", "HF_HOME",
    "HF_TOKEN",
)  # fmt: skip
_TICK = 0.2  # seconds: Ray's wish to cancel interrupts no waiting


def compute(
    asked: Begin,
    common: Sequence[Any],
    inbox: Any,
    wanted: Mapping[str, str],
    sent: Mapping[str, Any] | None,
) -> Ended | Missing | RefusedError:
    """Compute a job in a worker process of this node.

    Args:
        asked: the job, and its number.
        common: references to the setup and the terms of all jobs.
        inbox: the actor that hears of it.
        wanted: name -> sha256 of the files in the folder that the job reads.
        sent: name -> reference to the content of those files; None: they were not sent.
    """
    import ray

    setup, terms = ray.get(list(common))
    if version("toxbench") != terms.version:
        return RefusedError(
            "SettingsError",
            f"a node of the Ray cluster has toxbench {version('toxbench')}, and this is "
            f"{terms.version}; install the same one on every node",
        )
    spec: TaskSpec = asked.spec
    try:
        if spec.reads is not None:
            folder = folder_here(spec.reads, wanted, cache_folder())
            if folder is None:
                if sent is None:
                    return Missing(spec.reads)
                folder = keep_sent(wanted, lambda name: ray.get(sent[name]), cache_folder())
            spec = replace(spec, reads=folder)
        inbox.put.remote(Started(asked.number))
        return _compute(asked.number, spec, setup, terms, inbox)
    except StorageError as error:
        return RefusedError("StorageError", f"on a node of the Ray cluster: {error}")


def environ_there(environ: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return a node's own environment, and of the asking machine's what it says nothing of."""
    moved = {k: v for k, v in environ.items() if not k.startswith(_OF_A_MACHINE)}
    return {**moved, **own}


def _compute(
    number: int, spec: TaskSpec, setup: RunnerConfig, terms: TaskEnvironment, inbox: Any
) -> Ended:
    environ = environ_of_a_worker(environ_there(terms.environ, os.environ), terms.threads)
    path = [folder for folder in terms.path if os.path.exists(folder)]
    written = Path(tempfile.mkdtemp(prefix="toxbench-"))
    own = setup if setup.writes is None else replace(setup, writes=written)
    worker = WorkerProcess(own, spec, environ, terms.seconds, subprocess.DEVNULL, path)
    reports: list[object] = []
    try:
        while True:
            left = worker.deadline - time.monotonic()
            if not wait([worker.connection], max(0.0, min(_TICK, left))) and not worker.is_late:
                continue
            on_progress = worker.receive()
            if isinstance(on_progress, Progress):
                inbox.put.remote(Tell(number, len(reports), on_progress.report))
                reports.append(on_progress.report)
            elif isinstance(on_progress, TaskError):
                return Ended(number, on_progress, tuple(reports))
            elif on_progress is not None:
                return Ended(number, on_progress.value, tuple(reports), take_files(written))
    finally:
        worker.end()
        shutil.rmtree(written, ignore_errors=True)
