"""Messages and files between the main process, the driver process and the nodes of Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toxbench.errors import StorageError
from toxbench.executors.base import Pickled, TaskError
from toxbench.util.atomic import write_error
from toxbench.util.content import content_name, hash_files


@dataclass(frozen=True)
class TaskEnvironment:
    """How tasks run on a node.

    Attributes:
        environ: environment variables of the main machine, without secrets.
        path: folders from which the main process imports.
        threads: number of threads of a task.
        seconds: time limit of a task; None for no limit.
        version: of toxbench in the main process.
        writes_files: whether tasks write files, which are sent to the main process.
    """

    environ: Mapping[str, str]
    path: tuple[str, ...]
    threads: int
    seconds: float | None
    version: str
    writes_files: bool


@dataclass(frozen=True)
class Connect:
    """Join a cluster, or start Ray on this machine.

    Attributes:
        address: of the cluster; None to start Ray.
        local_cpus: CPUs of a Ray that is started.
        gpus: share of a GPU for each task that uses one.
        config: the `RunnerConfig`, sent to every process that computes.
        environment: how tasks run.
    """

    address: str | None
    local_cpus: int
    gpus: float
    config: Pickled
    environment: TaskEnvironment


@dataclass(frozen=True)
class Connected:
    """The driver has joined the cluster."""


@dataclass(frozen=True)
class StartTask:
    """Submit a task.

    Attributes:
        number: identifies it in all later messages.
        spec: the `TaskSpec`.
        reads: a folder whose files it needs; None if it needs none.
        uses_gpu: it computes on a CUDA device.
    """

    number: int
    spec: Pickled
    reads: Path | None
    uses_gpu: bool


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
        value: the result, or an error.
        reports: all reports of the task, in order.
        files: name -> content of the files that it wrote.
    """

    number: int
    value: Pickled | TaskError
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


def find_folder(folder: Path, hashes: Mapping[str, str], cache: Path) -> Path | None:
    """Return a folder of this machine with exactly these files; None if there is none.

    Args:
        folder: its path on the main machine, which may be shared with this one.
        hashes: name -> sha256.
        cache: holds the folders that were sent earlier.
    """
    candidates = (folder, cache / content_name(hashes))
    return next((path for path in candidates if hash_files(path) == hashes), None)


def read_files(folder: Path) -> dict[str, bytes]:
    """Return relative path -> content of all files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files, relative path -> content, that `read_files` read on another machine.

    Raises:
        StorageError: the folder cannot be written, or a path leads out of it.
    """
    for name, content in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise StorageError(
                f"a node of the Ray cluster sent a file named {name!r}, which is outside of "
                f"{folder}; check that node"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise write_error(path, error) from error
