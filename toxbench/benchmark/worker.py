"""The process of a worker: computes what it is sent, one cell at a time, and reports."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from multiprocessing.connection import Connection

from toxbench.benchmark.candidate import Candidate
from toxbench.benchmark.cell import GoingOn
from toxbench.benchmark.child import leave_with_parent
from toxbench.benchmark.execution import Failure, Station
from toxbench.benchmark.jobs import Broken, Job, Ready, Setup, candidate_of
from toxbench.errors import StorageError, ToxbenchError
from toxbench.plugin.registry import Registry
from toxbench.training.interruption import Asked, Stopped


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until it closes."""
    leave_with_parent()
    with Connection(descriptor) as connection:
        connection.send(Ready())
        setup: Setup = connection.recv()
        worker = _Worker(connection, setup)
        with suppress(EOFError, Stopped):
            while isinstance(job := connection.recv(), Job):
                worker.serve(job)


class _ByConnection:
    """Whatever is said while a cell is computed: it can only be to leave."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def listening(self) -> Iterator[Asked]:
        """Yield what tells whether something was said."""
        yield self._connection.poll


class _Worker:
    def __init__(self, connection: Connection, setup: Setup) -> None:
        self._connection = connection
        self._plugin = setup.plugin
        going_on = GoingOn(setup.keeping, _ByConnection(connection)) if setup.keeping else None
        self._station = Station(setup.protocol, setup.devices, setup.models, going_on)
        self._candidates: dict[tuple[str, str], Candidate] = {}

    def serve(self, job: Job) -> None:
        """Compute a cell and report how it went."""
        try:
            candidate = self._candidate(job)
            found = self._station.compute(candidate, job.key, self._connection.send)
        except StorageError as error:
            self._connection.send(Broken(str(error)))
        except ToxbenchError as error:
            self._connection.send(Failure.of(job.key, error))
        else:
            self._connection.send(found)

    @cached_property
    def _registry(self) -> Registry:
        """What toxbench brings, and the one plugin whose cells are computed here."""
        return Registry.discover([] if self._plugin is None else [self._plugin])

    def _candidate(self, job: Job) -> Candidate:
        """Return the same object for the same candidate, so that its cells share their bench."""
        name = job.key.candidate, job.key.digest
        if name not in self._candidates:
            self._candidates[name] = candidate_of(job, self._registry)
        return self._candidates[name]
