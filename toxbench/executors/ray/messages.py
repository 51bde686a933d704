"""Messages between the main process, the driver process and the nodes of a Ray cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toxbench.executors.base import RunnerConfig, TaskSpec


@dataclass(frozen=True)
class TaskEnvironment:
    """How tasks run on a node.

    Attributes:
        environ: environment variables of the main machine, without secrets.
        path: folders from which the main process imports.
        threads: number of threads of a task.
        seconds: time limit of a task; None for no limit.
        version: of toxbench in the main process.
    """

    environ: Mapping[str, str]
    path: tuple[str, ...]
    threads: int
    seconds: float | None
    version: str


@dataclass(frozen=True)
class Connect:
    """Join a cluster, or start Ray on this machine.

    Attributes:
        address: of the cluster; None to start Ray.
        local_cpus: CPUs of a Ray that is started.
        gpus: share of a GPU for each task that uses one.
        config: sent to every process that computes.
        environment: how tasks run.
    """

    address: str | None
    local_cpus: int
    gpus: float
    config: RunnerConfig
    environment: TaskEnvironment


@dataclass(frozen=True)
class Connected:
    """The driver has joined the cluster."""


@dataclass(frozen=True)
class StartTask:
    """Submit a task; ``number`` identifies it in all later messages."""

    number: int
    spec: TaskSpec


@dataclass(frozen=True)
class CancelTask:
    """Cancel a task; its later messages are ignored."""

    number: int


@dataclass(frozen=True)
class Capacity:
    """How many tasks the nodes can compute at once."""

    count: int


@dataclass(frozen=True)
class TaskStarted:
    """A task starts on a node; sent again if its node is lost and the task starts on another."""

    number: int


@dataclass(frozen=True)
class TaskProgress:
    """A report of a task; ``index`` counts its reports, so that a second attempt repeats none."""

    number: int
    index: int
    report: object


@dataclass(frozen=True)
class TaskEnded:
    """A task has ended.

    Attributes:
        number: of the task.
        value: the result, or a `TaskError`.
        reports: all reports of the task, in order.
        files: name -> content of the files that it wrote.
    """

    number: int
    value: object
    reports: tuple[object, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class FatalError:
    """No further task can be computed: the name of an error's class, and its message."""

    kind: str
    message: str


@dataclass(frozen=True)
class MissingFiles:
    """A node has no copy of the folder that a task reads, so its files must be sent."""

    folder: Path


Message = Connected | Capacity | TaskStarted | TaskProgress | TaskEnded | FatalError
