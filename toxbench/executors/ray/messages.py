"""What is said between this process, the one that talks to Ray, and the nodes of the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toxbench.executors.base import RunnerConfig, TaskSpec


@dataclass(frozen=True)
class TaskEnvironment:
    """How tasks run on a node.

    Attributes:
        environ: of the machine that asks, as far as it names no place there.
        path: where that machine imports from.
        threads: of a task.
        seconds: what it may take; None: any time.
        version: of toxbench.
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
        address: of the cluster; None: start Ray.
        local_cpus: of a Ray that is started.
        gpus: share of a GPU of a task that uses one.
        setup: what every process gets that computes.
        terms: how tasks run.
    """

    address: str | None
    local_cpus: int
    gpus: float
    setup: RunnerConfig
    terms: TaskEnvironment


@dataclass(frozen=True)
class Connected:
    """The cluster is joined."""


@dataclass(frozen=True)
class Begin:
    """Let a task run; ``number`` tells it from all others."""

    number: int
    spec: TaskSpec


@dataclass(frozen=True)
class Stop:
    """End a task; nothing more is said of it."""

    number: int


@dataclass(frozen=True)
class Capacity:
    """So many tasks the cluster holds at once."""

    count: int


@dataclass(frozen=True)
class Started:
    """A task begins, on whatever node; again, if the one before was lost."""

    number: int


@dataclass(frozen=True)
class Tell:
    """What a task says; ``place`` counts its reports, so that a second attempt repeats none."""

    number: int
    place: int
    report: object


@dataclass(frozen=True)
class Ended:
    """A task is over.

    Attributes:
        number: of the task.
        value: its result, or why it has none.
        reports: all that it said, in order.
        files: that it wrote, by their names.
    """

    number: int
    value: object
    reports: tuple[object, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class RefusedError:
    """Nothing can go on: the name of an error's class, and its message."""

    kind: str
    message: str


@dataclass(frozen=True)
class Missing:
    """A node has not the folder that a job reads: its files have to be sent along."""

    folder: Path


Message = Connected | Capacity | Started | Tell | Ended | RefusedError
