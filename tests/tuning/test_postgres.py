"""Workers that share a study in PostgreSQL; TOXBENCH_POSTGRES is the URL of the server."""

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from toxbench.cli.main import main
from toxbench.errors import TryAgainError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from tuning.conftest import Command, Search, Study

pytestmark = pytest.mark.slow

SLOW = ("--space", "epochs=16:20", "--pruner", "none")  # trials that last while they are observed
SECRET = "hunter2x"  # noqa: S105
_NUMBER = itertools.count()


class Server:
    """A PostgreSQL server."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def execute(self, statement: str) -> None:
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def url(self, database: str) -> str:
        return self._url.set(database=database).render_as_string(hide_password=False)

    def drop(self, database: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def disconnect(self, database: str) -> None:
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # noqa: S608
            f"WHERE datname = '{database}'"
        )


@pytest.fixture
def server() -> Server:
    url = os.environ.get("TOXBENCH_POSTGRES")
    if not url:
        pytest.skip("TOXBENCH_POSTGRES does not name a PostgreSQL server")
    return Server(make_url(url))


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """Name of an empty database."""
    name = f"toxbench_{os.getpid()}_{next(_NUMBER)}"
    server.execute(f"CREATE DATABASE {name}")
    yield name
    server.drop(name)


@pytest.fixture
def storage(server: Server, database: str) -> str:
    """URL of an empty database."""
    return server.url(database)


def count_trained(*commands: "Command") -> int:
    """Count the trials, finalists included, in the output of commands."""
    lines = [line for command in commands for line in command.output.splitlines()]
    return sum(line.startswith("[bert trial") for line in lines)


def finished_slots(trials: "list[FrozenTrial]") -> list[int]:
    """Return the slots of the finished trials in a database."""
    return sorted(t.user_attrs["slot"] for t in trials if "record" in t.user_attrs)


def test_survivor_finishes_in_the_same_folder(
    search: "Search", storage: str, study: "type[Study]"
) -> None:
    options = (*SLOW, "--trials", "6", "--storage", storage)
    commands = [search.start(*options), search.start(*options)]
    rng = random.Random(3)
    victim = commands.pop(rng.randrange(2))
    (survivor,) = commands
    survivor.wait_until(lambda: len(search.trials) >= 2 and len(study(storage).running) == 2)
    time.sleep(rng.uniform(0, 0.2))
    victim.kill()
    assert survivor.wait() == 0, survivor.output
    search.check(trials=6)
    assert finished_slots(study(storage).trials) == list(range(6))
    assert count_trained(victim, survivor) <= 6 + len(search.finalists)
    assert not search.database.exists()


def test_survivor_finishes_in_another_folder(
    search: "Search", inputs: "Search", storage: str, study: "type[Study]"
) -> None:
    """Without a common lock folder, missing heartbeats show after 30 s that a worker is dead."""
    remote = inputs.copy(search.results.parent / "remote")
    options = (*SLOW, "--trials", "6", "--storage", storage)
    victim, survivor = remote.start(*options), search.start(*options)
    survivor.wait_until(lambda: len(remote.trials) >= 2 and len(study(storage).running) == 2)

    def stop_between_commits() -> bool:
        victim.signal(signal.SIGSTOP)
        written = {record.number for record in remote.trials}
        is_between = written <= set(finished_slots(study(storage).trials))
        if not is_between:
            victim.signal(signal.SIGCONT)
        return is_between

    # A trial whose record only the killed machine has is trained again.
    survivor.wait_until(stop_between_commits)
    victim.kill()
    before = remote.files
    assert survivor.wait() == 0, survivor.output
    search.check(trials=6)
    assert finished_slots(study(storage).trials) == list(range(6))
    assert before.items() <= search.files.items()
    assert count_trained(victim, survivor) <= 6 + len(search.finalists)
    restarted = remote.start(*options)
    assert restarted.wait() == 0, restarted.output
    assert count_trained(restarted) == 0
    assert remote.files == search.files
    assert (remote.study / "tuned.toml").read_bytes() == (search.study / "tuned.toml").read_bytes()


def test_dropped_database_is_restored_from_records(
    search: "Search", server: Server, database: str, storage: str, study: "type[Study]"
) -> None:
    search.tune(tune={"storage": storage})
    files = search.files
    server.drop(database)
    with pytest.raises(TryAgainError):
        search.tune(tune={"storage": storage})
    server.execute(f"CREATE DATABASE {database}")
    search.tune(tune={"storage": storage})
    assert search.files == files
    assert finished_slots(study(storage).trials) == list(range(5))
    search.tune(tune={"storage": storage, "trials": 7})
    assert files.items() < search.files.items()
    search.check(trials=7, finalists=len(search.finalists))


def test_lost_server_loses_no_trial(
    search: "Search", server: Server, database: str, storage: str, study: "type[Study]"
) -> None:
    command = search.start(*SLOW, "--space", "epochs=50:60", "--storage", storage)
    command.wait_until(lambda: search.trials and study(storage).running)
    before = search.files
    server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    server.disconnect(database)
    assert command.wait() == 75, command.output
    errors = [line for line in command.output.splitlines() if "toxbench: error" in line]
    assert len(errors) == 1
    assert "Traceback" not in command.output
    assert before.items() <= search.files.items()


def test_password_is_not_written(
    search: "Search",
    storage: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The server accepts every password."""
    secret = make_url(storage).set(password=SECRET).render_as_string(hide_password=False)
    monkeypatch.chdir(tmp_path)
    search.results.parent.mkdir(exist_ok=True)
    arguments = ["tune", "--data", str(search.data), "--config", str(search.config), "--weights",
                 f"bert={search.checkpoint}", "--trials", "2", "--debug"]  # fmt: skip
    for flags in ([], ["--quiet"]):
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--storage", secret, *flags])
        output = capsys.readouterr()
        assert stop.value.code == 0, output.err
        assert SECRET not in output.out + output.err
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert len(search.trials) == 2
