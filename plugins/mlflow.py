"""MLflow as a tracker: a database file below the results, one run for each cell, no server.

Needs pip install "toxbench[mlflow]". MLflow's folder of text files is closed for new results, so
this is its other local store, SQLite.
"""

import logging
import os
import time
from pathlib import Path
from typing import Any

from toxbench import (
    CellKey,
    CellRecord,
    EpochRecord,
    RunRecord,
    Tracker,
    cell_facts,
    cell_numbers,
    epoch_numbers,
    hookimpl,
)

_DATABASE = "mlflow.db"
_EXPERIMENT = "toxbench"
# What MLflow would otherwise fill with the user's name and with paths.
_NOBODY = {
    "mlflow.user": "",
    "mlflow.source.name": "toxbench",
    "mlflow.source.type": "LOCAL",
}
# No local path, so nobody's home folder is stored; toxbench stores no artifact there.
_ARTIFACTS = "mlflow-artifacts:/toxbench"
_CELL = "toxbench.cell"
_TAGS = ("stand_in", "synthetic", "exploratory", "constant", "tuned", "kind", "table", "protocol")


class MLflow:
    """Writes what it hears into a database."""

    def __init__(self, folder: Path) -> None:
        # A tracker has a process of its own, so this is nobody else's environment.
        os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        database = folder.absolute() / _DATABASE
        if not database.exists():
            _make(database)
        self._client = MlflowClient(f"sqlite:///{database}")
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        self._experiment: str = (
            found.experiment_id
            if found is not None
            else self._client.create_experiment(_EXPERIMENT, _ARTIFACTS)
        )
        self._open: dict[CellKey, str] = {}
        self._run: RunRecord | None = None

    @hookimpl
    def toxbench_run_started(self, run: RunRecord) -> None:
        """Remember what the run is about."""
        self._run = run

    @hookimpl
    def toxbench_epoch_finished(self, cell: CellKey, epoch: EpochRecord) -> None:
        """Log the epoch; the first one begins an MLflow run in place of an older one."""
        self._log(self._run_of(cell, anew=epoch.epoch == 1), epoch.epoch, epoch_numbers(epoch))

    @hookimpl
    def toxbench_cell_finished(self, result: CellRecord) -> None:
        """Log scores, settings and tags."""
        run = self._run_of(result.key, anew=False)
        self._log(run, result.best_epoch or 0, cell_numbers(result))
        facts = {name: _text(value) for name, value in cell_facts(result, self._run).items()}
        params = {name: text for name, text in facts.items() if name not in _TAGS}
        tags = {f"toxbench.{name}": facts[name] for name in _TAGS if name in facts}
        self._batch(run, params=params, tags=tags)
        self._client.set_terminated(run)
        del self._open[result.key]

    def close(self) -> None:
        """Mark the runs of cells that did not finish."""
        for run in self._open.values():
            self._client.set_terminated(run, status="KILLED")

    def _run_of(self, cell: CellKey, anew: bool) -> str:
        if anew or cell not in self._open:
            for older in self._client.search_runs(
                [self._experiment], f"tags.`{_CELL}` = '{cell.stem}'"
            ):
                self._client.delete_run(older.info.run_id)
            tags = {**_NOBODY, _CELL: cell.stem}
            made = self._client.create_run(self._experiment, tags=tags, run_name=cell.stem)
            self._open[cell] = made.info.run_id
        return self._open[cell]

    def _log(self, run: str, step: int, numbers: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(run, metrics=metrics)

    def _batch(self, run: str, params: dict[str, str], tags: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        items: Any = [Param(*item) for item in params.items()]
        self._client.log_batch(run, params=items, tags=[RunTag(*item) for item in tags.items()])


def _make(database: Path) -> None:
    """Make an empty database, there whole or not at all: MLflow cannot mend one that was cut off.

    Who opens it first says where artifacts of its default experiment go.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = database.with_name(f"{database.name}.unfinished")
    for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        left.unlink(missing_ok=True)
    store: Any = SqlAlchemyStore
    store(f"sqlite:///{unfinished}", _ARTIFACTS).engine.dispose()
    unfinished.rename(database)


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@hookimpl
def toxbench_trackers() -> list[Tracker]:
    """Register MLflow; nothing of it is imported before it is asked for."""
    return [
        Tracker(
            name="mlflow",
            start=MLflow,
            needs="mlflow",
            install='pip install "toxbench[mlflow]"',
            view=f"mlflow ui --backend-store-uri sqlite:///{{folder}}/{_DATABASE}",
            patience=120,  # the first time, it makes some seventy tables in as many steps
        )
    ]
