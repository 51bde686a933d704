"""Small searches, through the Python API or as commands in other processes."""

import json
import multiprocessing
import os
import shutil
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from children import MODULES
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool
from support import TIMEOUT, write_table

import toxbench
from toxbench.records import TrialRecord
from toxbench.settings import TrainSettings
from toxbench.store.files import read_cell
from toxbench.store.trials import TrialStore

# All settings are fixed except the learning rate and the epochs: few dimensions make small plots.
CONFIG = """
backbones = ["bert"]
baselines = []
seeds = 1
[train]
head_init = "random"
batch_size = 16
max_length = 16
head_learning_rate = 1e-3
layer_decay = 1.0
warmup = 0.1
weight_decay = 0.01
dropout = 0.1
loss = "bce"
[tune]
trials = 5
finalists = 2
finalist_seeds = 1
finalist_folds = 1
[tune.space]
epochs = "1:2"
learning_rate = "1e-4:1e-2:log"
"""

# A server that has imported torch forks a process for each command.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(list(MODULES))
_RUNNING_TRIALS = """
SELECT number FROM trials JOIN trial_user_attributes USING (trial_id)
WHERE trials.state = 'RUNNING' AND trial_user_attributes.key = 'slot' ORDER BY number
"""
_COMMAND = """
import os, signal
from children import fork_server, patch_children
server = fork_server()
patch_children(lambda: server)
signal.signal(signal.SIGINT, signal.default_int_handler)  # the server's processes ignore it
handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
os.dup2(handle, 1)
os.dup2(handle, 2)
from toxbench.cli.main import main
main(arguments)
"""


class Command:
    """A toxbench command in another process."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._log = log
        variables = {"arguments": arguments, "log": str(log)}
        self._process = _PROCESSES.Process(target=exec, args=(_COMMAND, variables))
        self._process.start()

    @property
    def output(self) -> str:
        """Text on stdout and stderr so far."""
        return self._log.read_text(encoding="utf-8") if self._log.is_file() else ""

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def wait(self, seconds: float = 300) -> int:
        """Wait for the end and return the exit code; kill a command that hangs, and fail."""
        self._process.join(seconds)
        if self._process.is_alive():
            self.kill()
            pytest.fail(f"still running after {seconds} s:\n{self.output}")
        code = self._process.exitcode
        assert code is not None
        return code

    def signal(self, number: int) -> None:
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.join()

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds while the command runs."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            if not self.is_alive or time.monotonic() > end:
                self.kill()
                pytest.fail(f"the condition never held:\n{self.output}")
            time.sleep(0.005)


@dataclass(frozen=True)
class Search:
    """A search in a results folder."""

    data: Path
    checkpoint: Path
    config: Path
    results: Path

    def tune(self, **options: Any) -> pd.DataFrame:
        """Call `toxbench.tune`, and return the leaderboard; keywords override the options."""
        return toxbench.tune(**(self._options | options)).leaderboard

    def run_tuned(self, **options: Any) -> pd.DataFrame:
        """Call `toxbench.run` with the default settings and the tuned ones."""
        return toxbench.run(**(self._options | {"tuned": True} | options)).leaderboard

    def start(self, *arguments: str) -> Command:
        """Start ``toxbench tune`` in another process."""
        self.results.parent.mkdir(parents=True, exist_ok=True)
        log = self.results.parent / f"{self.results.name}-{time.monotonic_ns()}.log"
        options = ["--data", str(self.data), "--config", str(self.config), "--weights",
                   f"bert={self.checkpoint}", "--results", str(self.results)]  # fmt: skip
        return Command(["tune", *options, *arguments], log)

    def copy(self, results: Path) -> "Search":
        """Copy the results, if there are any, to another folder; return the search there."""
        if self.results.exists():
            shutil.copytree(self.results, results)
        return Search(self.data, self.checkpoint, self.config, results)

    @property
    def studies(self) -> list[Path]:
        """Folder of each study."""
        paths = self.results.glob("*/tuning/*")
        return sorted(path for path in paths if path.is_dir() and path.name[0] != ".")

    @property
    def study(self) -> Path:
        """Folder of the only study."""
        (folder,) = self.studies
        return folder

    @property
    def trials(self) -> list[TrialRecord]:
        """Committed trials of the only study; empty before it starts."""
        return TrialStore(self.study / "trials").records() if self.studies else []

    @property
    def finalists(self) -> list[TrialRecord]:
        """Committed finalists of the only study."""
        folders = sorted(self.study.glob("finalists-*")) if self.studies else []
        return [record for folder in folders for record in TrialStore(folder).records()]

    @property
    def tuned_toml(self) -> dict[str, Any]:
        """Content of tuned.toml of the only study."""
        return tomllib.loads((self.study / "tuned.toml").read_text(encoding="utf-8"))

    @property
    def files(self) -> dict[str, bytes]:
        """Path -> content of every committed trial, finalists included."""
        paths = self.results.glob("*/tuning/*/*/trial-*.json")
        return {str(path.relative_to(self.results)): path.read_bytes() for path in paths}

    @property
    def cells(self) -> dict[str, bytes]:
        """Name -> content of every stored cell."""
        return {path.name: path.read_bytes() for path in self.results.glob("*/cells/*")}

    @property
    def tuned_cell(self) -> Path:
        """Path of the only cell with tuned settings."""
        paths = self.results.glob("*/cells/*")
        (path,) = [path for path in paths if read_cell(path)[0].tuning is not None]
        return path

    @property
    def database(self) -> Path:
        """Path of the default database, which may not exist."""
        folders = list(self.results.glob("*/tuning"))
        return (folders[0] if folders else self.results) / "studies.sqlite3"

    @property
    def url(self) -> str:
        """URL of the default database."""
        return f"sqlite:///{self.database}"

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "config": self.config,
            "weights": f"bert={self.checkpoint}",
            "results": self.results,
        }

    @property
    def expected_finalists(self) -> list[TrainSettings]:
        """Settings of the two best trials, and the default settings."""
        complete = [record for record in self.trials if record.value is not None]
        ranked = sorted(complete, key=lambda record: -(record.value or 0.0))
        best = [record.settings for record in ranked[:2]]
        default = [record.settings for record in complete if record.is_default]
        return best + [settings for settings in default if settings not in best]

    def check(self, trials: int, finalists: int | None = None) -> None:
        """Assert the invariants of every finished search, also after faults."""
        records = self.trials
        assert len(records) == trials
        assert len({record.number for record in records}) == trials
        assert sorted(record.plan_index for record in records) == list(range(trials))
        assert [record.number for record in records if record.is_default][1:] == []
        assert any(record.is_default for record in records)
        params = [json.dumps(r.params, sort_keys=True) for r in records if not r.is_default]
        assert len(set(params)) == len(params)
        assert len(self.finalists) == (finalists or len(self.expected_finalists))
        assert any(record.is_default for record in self.finalists)
        assert {"tuned.toml", "trials.csv", "history.svg"} <= {p.name for p in self.study.iterdir()}
        assert self.cells


class Study:
    """The study of a search in the database, read or changed without toxbench."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials except those of finalists; empty before the study exists."""
        with self._load() as study:
            return study.trials if study else []

    @property
    def running(self) -> list[int]:
        """Numbers of the running trials that have a slot."""
        engine = create_engine(self._url, poolclass=NullPool)
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(_RUNNING_TRIALS)).scalars())
        except SQLAlchemyError:  # the database is being created
            return []

    def fail_running_trials(self) -> list[int]:
        """Fail the running trials, as a worker does if it declares the others dead."""
        engine = create_engine(self._url, poolclass=NullPool)
        with engine.begin() as connection:
            numbers = list(connection.execute(text(_RUNNING_TRIALS)).scalars())
            if numbers:
                statement = "UPDATE trials SET state = 'FAIL' WHERE state = 'RUNNING'"
                connection.execute(text(statement))
        return numbers

    @contextmanager
    def _load(self) -> Iterator[optuna.Study | None]:
        storage = RDBStorage(self._url)
        try:
            names = [n for n in optuna.get_all_study_names(storage) if "finalists" not in n]
            yield optuna.load_study(study_name=names[0], storage=storage) if names else None
        finally:
            storage.remove_session()
            storage.engine.dispose()


@pytest.fixture(autouse=True, scope="session")
def _quiet_optuna() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


@pytest.fixture
def study() -> type[Study]:
    """Class of studies in the database of a URL."""
    return Study


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Search:
    """A table and a config file before any search."""
    folder = tmp_path_factory.mktemp("inputs")
    config = folder / "search.toml"
    config.write_text(CONFIG, encoding="utf-8")
    return Search(write_table(folder / "comments.csv"), checkpoint, config, folder / "results")


@pytest.fixture(scope="session")
def _finished(inputs: Search, tmp_path_factory: pytest.TempPathFactory) -> Search:
    search = inputs.copy(tmp_path_factory.mktemp("finished") / "results")
    search.tune()
    return search


@pytest.fixture
def search(inputs: Search, tmp_path: Path) -> Search:
    """A search that has not started."""
    return inputs.copy(tmp_path / "results")


@pytest.fixture
def finished(_finished: Search, tmp_path: Path) -> Search:
    """A copy of a finished search with 5 trials."""
    return _finished.copy(tmp_path / "finished")
