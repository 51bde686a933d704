"""The process of a worker: computes what it is sent, one job at a time, and reports."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from toxbench.errors import StorageError, ToxbenchError
from toxbench.executors.child import leave_with_parent
from toxbench.executors.interface import Fault, Job, Setup
from toxbench.executors.process import Broken, Ready, Result, Told
from toxbench.interruption import Asked, Stopped
from toxbench.plugin.registry import Registry


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until it closes."""
    leave_with_parent()
    with Connection(descriptor) as connection:
        connection.send(Ready())
        setup: Setup = connection.recv()
        worker = _Worker(connection, setup)
        with suppress(EOFError, Stopped):
            while isinstance(job := connection.recv(), Job):
                connection.send(worker.serve(job))


class _ByConnection:
    """Whatever is said while a job is computed: it can only be to leave."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def listening(self) -> Iterator[Asked]:
        """Yield what tells whether something was said."""
        yield self._connection.poll


class _Worker:
    def __init__(self, connection: Connection, setup: Setup) -> None:
        self._connection = connection
        self._station = setup.station(_ByConnection(connection))
        self._registry: Registry | None = None

    def serve(self, job: Job) -> Result | Fault | Broken:
        """Compute a job; return how it went."""
        try:
            task = job.task(self._own(job))
            found = self._station.compute(task, lambda report: self._connection.send(Told(report)))
        except StorageError as error:
            return Broken(str(error))
        except ToxbenchError as error:
            return Fault.of(error)
        return found if isinstance(found, Fault) else Result(found)

    def _own(self, job: Job) -> Registry:
        """What toxbench brings, and the one plugin whose tasks are computed here."""
        if self._registry is None:
            self._registry = Registry.discover([] if job.plugin is None else [job.plugin])
        return self._registry
