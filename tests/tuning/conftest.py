"""Small searches: through the Python API here, or as the real command in other processes."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool
from support import write_table

import toxbench
from toxbench.records import TrialRecord
from toxbench.settings import TrainSettings
from toxbench.store.trials import TrialStore

# Everything is kept but the rate and the epochs: few dimensions make small plots.
CONFIG = """
backbones = ["bert"]
baselines = []
seeds = 1
[train]
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
[tune.space]
epochs = "1:2"
learning_rate = "1e-4:1e-2:log"
"""

# A server that has torch already forks off the commands: each is a process of its own.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["toxbench.tuning.tune", "toxbench.cli.progress", "transformers.models.bert.modeling_bert",
     "transformers.models.bert.tokenization_bert", "optuna.visualization.matplotlib",
     "matplotlib.backends.backend_svg", "alembic.config", "optuna.storages._rdb.storage"]
)  # fmt: skip
_TAKEN = """
SELECT number FROM trials JOIN trial_user_attributes USING (trial_id)
WHERE trials.state = 'RUNNING' AND trial_user_attributes.key = 'slot' ORDER BY number
"""
_COMMAND = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # the server's processes ignore it
handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
os.dup2(handle, 1)
os.dup2(handle, 2)
from toxbench.cli.main import main
main(words)
"""


class Command:
    """A toxbench command that runs in a process of its own."""

    def __init__(self, words: list[str], log: Path) -> None:
        self._log = log
        variables = {"words": words, "log": str(log)}
        self._process = _PROCESSES.Process(target=exec, args=(_COMMAND, variables))
        self._process.start()

    @property
    def said(self) -> str:
        """What it has written so far, to stdout and to stderr."""
        return self._log.read_text(encoding="utf-8") if self._log.is_file() else ""

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def wait(self, seconds: float = 300) -> int:
        """Wait for its end and return the exit code; one that hangs is killed and fails."""
        self._process.join(seconds)
        if self._process.is_alive():
            self.kill()
            pytest.fail(f"still running after {seconds} s:\n{self.said}")
        code = self._process.exitcode
        assert code is not None
        return code

    def signal(self, number: int) -> None:
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.join()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds while the command runs."""
        end = time.monotonic() + 200
        while not condition():
            if not self.is_alive or time.monotonic() > end:
                self.kill()
                pytest.fail(f"it never came to that:\n{self.said}")
            time.sleep(0.005)


@dataclass(frozen=True)
class Search:
    """One search in a results folder."""

    data: Path
    checkpoint: Path
    config: Path
    results: Path

    def tune(self, **options: Any) -> pd.DataFrame:
        """Call `toxbench.tune`; keywords override."""
        return toxbench.tune(**(self._options | options))

    def run_tuned(self, **options: Any) -> pd.DataFrame:
        """Call `toxbench.run` with the default settings and the tuned ones."""
        return toxbench.run(**(self._options | {"tuned": True} | options))

    def start(self, *words: str) -> Command:
        """Start ``toxbench tune`` in a process of its own."""
        self.results.parent.mkdir(parents=True, exist_ok=True)
        log = self.results.parent / f"{self.results.name}-{time.monotonic_ns()}.log"
        options = ["--data", str(self.data), "--config", str(self.config), "--weights",
                   f"bert={self.checkpoint}", "--results", str(self.results)]  # fmt: skip
        return Command(["tune", *options, *words], log)

    def copy(self, results: Path) -> "Search":
        """Copy what there is to another folder, and go on there."""
        if self.results.exists():
            shutil.copytree(self.results, results)
        return Search(self.data, self.checkpoint, self.config, results)

    @property
    def studies(self) -> list[Path]:
        """The folder of each study."""
        found = self.results.glob("*/tuning/*")
        return sorted(path for path in found if path.is_dir() and path.name[0] != ".")

    @property
    def study(self) -> Path:
        """The folder of the only study."""
        (folder,) = self.studies
        return folder

    @property
    def trials(self) -> list[TrialRecord]:
        """The committed trials of the only study; none before it began."""
        return TrialStore(self.study / "trials").records() if self.studies else []

    @property
    def finalists(self) -> list[TrialRecord]:
        """The committed finalists of the only study."""
        folders = sorted(self.study.glob("finalists-*")) if self.studies else []
        return [record for folder in folders for record in TrialStore(folder).records()]

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
    def database(self) -> Path:
        """The default database, which need not be there."""
        found = list(self.results.glob("*/tuning"))
        return (found[0] if found else self.results) / "studies.sqlite3"

    @property
    def url(self) -> str:
        """Its URL."""
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
    def expected(self) -> list[TrainSettings]:
        """What the finalists have to be: the two best trials, and the default settings."""
        complete = [record for record in self.trials if record.value is not None]
        ranked = sorted(complete, key=lambda record: -(record.value or 0.0))
        best = [record.settings for record in ranked[:2]]
        default = [record.settings for record in complete if record.is_default]
        return best + [settings for settings in default if settings not in best]

    def check(self, trials: int, finalists: int | None = None) -> None:
        """Assert what holds of every search that came to its end, whatever befell it."""
        records = self.trials
        assert len(records) == trials
        assert len({record.number for record in records}) == trials
        assert sorted(record.plan_index for record in records) == list(range(trials))
        assert [record.number for record in records if record.is_default][1:] == []
        assert any(record.is_default for record in records)
        drawn = [json.dumps(r.params, sort_keys=True) for r in records if not r.is_default]
        assert len(set(drawn)) == len(drawn)
        assert len(self.finalists) == (finalists or len(self.expected))
        assert any(record.is_default for record in self.finalists)
        assert {"tuned.toml", "trials.csv", "history.svg"} <= {p.name for p in self.study.iterdir()}
        assert self.cells


class Study:
    """The study of a search as the database has it, read or changed behind toxbench's back."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, the finalists' apart; none before there is such a study."""
        with self._opened() as study:
            return study.trials if study else []

    @property
    def running(self) -> list[int]:
        """Numbers of the trials that a worker has taken and not finished."""
        engine = create_engine(self._url, poolclass=NullPool)
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(_TAKEN)).scalars())
        except SQLAlchemyError:  # the database is only being made
            return []

    def lose(self) -> list[int]:
        """Fail the running trials, as a worker does that takes the others for dead."""
        engine = create_engine(self._url, poolclass=NullPool)
        with engine.begin() as connection:
            numbers = list(connection.execute(text(_TAKEN)).scalars())
            if numbers:
                statement = "UPDATE trials SET state = 'FAIL' WHERE state = 'RUNNING'"
                connection.execute(text(statement))
        return numbers

    @contextmanager
    def _opened(self) -> Iterator[optuna.Study | None]:
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
    """Look into the database of a URL."""
    return Study


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Search:
    """A table and a config file, and no search yet."""
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
    """A search that nothing was done of."""
    return inputs.copy(tmp_path / "results")


@pytest.fixture
def finished(_finished: Search, tmp_path: Path) -> Search:
    """A copy of a finished search of 5 trials."""
    return _finished.copy(tmp_path / "finished")
