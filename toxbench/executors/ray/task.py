"""The Ray task: starts on a node the same worker process as on the main machine."""

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
from toxbench.executors.base import Pickled, TaskError, worker_environ
from toxbench.executors.ray.messages import (
    FatalError,
    MissingFiles,
    StartTask,
    TaskEnded,
    TaskEnvironment,
    TaskProgress,
    TaskStarted,
    find_folder,
    read_files,
)
from toxbench.executors.worker import Progress, WorkerProcess
from toxbench.util.atomic import cache_folder
from toxbench.util.content import complete_folder

# Variables that name folders or devices of one machine, or that Ray sets on each node.
_MACHINE_PREFIXES = (
    "LD_", "PYTHON", "RAY_", "XDG_", "TMPDIR", "TOXBENCH_CACHE", "CUDA_VISIBLE", "HF_HOME",
    "HF_TOKEN",
)  # fmt: skip
_POLL_SECONDS = 0.2  # Ray cancels a task between two waits, not during one


def compute(
    start: StartTask,
    shared: Sequence[Any],
    inbox: Any,
    hashes: Mapping[str, str],
    contents: Mapping[str, Any] | None,
) -> TaskEnded | MissingFiles | FatalError:
    """Compute a task in a worker process of this node.

    Args:
        start: the task and its number.
        shared: references to the `RunnerConfig` and the `TaskEnvironment` of all tasks.
        inbox: the actor that receives messages.
        hashes: name -> sha256 of the files in the folder that the task reads.
        contents: name -> reference to the content of those files; None if they were not sent.
    """
    import ray

    config, environment = ray.get(list(shared))
    if version("toxbench") != environment.version:
        return FatalError(
            "SettingsError",
            f"a node of the Ray cluster has toxbench {version('toxbench')}, and this machine has "
            f"{environment.version}; install the same version on every node",
        )
    spec = start.spec
    try:
        if start.reads is not None:
            cache = cache_folder() / "sent"
            folder = find_folder(start.reads, hashes, cache)
            if folder is None:
                if contents is None:
                    return MissingFiles(start.reads)
                folder = complete_folder(cache, hashes, lambda name: ray.get(contents[name]))
            spec = replace(spec, changes={"reads": folder})
        inbox.put.remote(TaskStarted(start.number))
        return _compute(start.number, spec, config, environment, inbox)
    except StorageError as error:
        return FatalError("StorageError", f"on a node of the Ray cluster: {error}")


def task_environ(environ: Mapping[str, str], node_environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a task: the node's variables, then those of the main machine.

    Variables that name folders or devices of the main machine are left out.
    """
    portable = {k: v for k, v in environ.items() if not k.startswith(_MACHINE_PREFIXES)}
    return {**portable, **node_environ}


def _compute(
    number: int, spec: Pickled, config: Pickled, environment: TaskEnvironment, inbox: Any
) -> TaskEnded:
    environ = worker_environ(task_environ(environment.environ, os.environ), environment.threads)
    path = [folder for folder in environment.path if os.path.exists(folder)]
    output = Path(tempfile.mkdtemp(prefix="toxbench-"))
    changes = {"writes": output} if environment.writes_files else {}
    node_config = replace(config, changes=changes)
    worker = WorkerProcess(
        node_config, spec, environ, environment.seconds, subprocess.DEVNULL, path
    )
    reports: list[object] = []
    try:
        while True:
            seconds_left = worker.deadline - time.monotonic()
            timeout = max(0.0, min(_POLL_SECONDS, seconds_left))
            if not wait([worker.connection], timeout) and not worker.is_late:
                continue
            message = worker.receive()
            if isinstance(message, Progress):
                inbox.put.remote(TaskProgress(number, len(reports), message.report))
                reports.append(message.report)
            elif isinstance(message, TaskError):
                return TaskEnded(number, message, tuple(reports))
            elif message is not None:
                return TaskEnded(number, message.value, tuple(reports), read_files(output))
    finally:
        worker.end()
        shutil.rmtree(output, ignore_errors=True)
