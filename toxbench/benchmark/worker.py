"""The process of a worker: computes what it is sent, one cell at a time, and reports."""

from functools import cached_property
from multiprocessing.connection import Connection

from toxbench.benchmark.candidate import Candidate
from toxbench.benchmark.child import leave_with_parent
from toxbench.benchmark.execution import Failure, Station
from toxbench.benchmark.jobs import Broken, Job, Ready, Setup, candidate_of
from toxbench.errors import StorageError, ToxbenchError
from toxbench.plugin.registry import Registry


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until it closes."""
    leave_with_parent()
    with Connection(descriptor) as connection:
        connection.send(Ready())
        setup: Setup = connection.recv()
        worker = _Worker(connection, setup)
        while True:
            try:
                job: Job = connection.recv()
            except EOFError:
                return
            worker.serve(job)


class _Worker:
    def __init__(self, connection: Connection, setup: Setup) -> None:
        self._connection = connection
        self._plugin = setup.plugin
        self._station = Station(setup.protocol, setup.devices, setup.models)
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
