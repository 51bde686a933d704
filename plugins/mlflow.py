"""MLflow as a tracker: an SQLite database in the results folder, one run for each cell, no server.

Needs pip install "toxbench[mlflow]". MLflow no longer accepts new results in folders of text files,
so this uses its other local store.
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
# Tags that MLflow would otherwise fill with the user's name and with paths.
_ANONYMOUS_TAGS = {
    "mlflow.user": "",
    "mlflow.source.name": "toxbench",
    "mlflow.source.type": "LOCAL",
}
# Not a local path, because the database would store it. toxbench stores no artifacts.
_ARTIFACT_LOCATION = "mlflow-artifacts:/toxbench"
_CELL_TAG = "toxbench.cell"
_FACTS_AS_TAGS = (
    "stand_in",
    "synthetic",
    "exploratory",
    "constant",
    "tuned",
    "kind",
    "table",
    "protocol",
)


class MLflow:
    """Writes epochs and cells into a database."""

    def __init__(self, folder: Path) -> None:
        # A tracker runs in a separate process, so this does not change the run's environment.
        os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        database = folder.absolute() / _DATABASE
        if not database.exists():
            _create_database(database)
        self._client = MlflowClient(f"sqlite:///{database}")
        experiment = self._client.get_experiment_by_name(_EXPERIMENT)
        self._experiment_id: str = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(_EXPERIMENT, _ARTIFACT_LOCATION)
        )
        self._open_runs: dict[CellKey, str] = {}  # cell -> id of the MLflow run
        self._run: RunRecord | None = None

    @hookimpl
    def toxbench_run_started(self, run: RunRecord) -> None:
        """Remember the run's facts for the cells."""
        self._run = run

    @hookimpl
    def toxbench_epoch_finished(self, cell: CellKey, epoch: EpochRecord) -> None:
        """Log an epoch; the first one starts an MLflow run that replaces older ones."""
        run_id = self._run_id(cell, restart=epoch.epoch == 1)
        self._log_metrics(run_id, epoch.epoch, epoch_numbers(epoch))

    @hookimpl
    def toxbench_cell_finished(self, result: CellRecord) -> None:
        """Log scores, settings and tags."""
        run_id = self._run_id(result.key, restart=False)
        self._log_metrics(run_id, len(result.epochs), cell_numbers(result))
        facts = {name: _text(value) for name, value in cell_facts(result, self._run).items()}
        params = {name: text for name, text in facts.items() if name not in _FACTS_AS_TAGS}
        tags = {f"toxbench.{name}": facts[name] for name in _FACTS_AS_TAGS if name in facts}
        self._log_facts(run_id, params=params, tags=tags)
        self._client.set_terminated(run_id)
        del self._open_runs[result.key]

    def close(self) -> None:
        """Mark the runs of cells that did not finish."""
        for run_id in self._open_runs.values():
            self._client.set_terminated(run_id, status="KILLED")

    def _run_id(self, cell: CellKey, restart: bool) -> str:
        """Return the cell's open run; create one, and delete older ones, if needed."""
        if restart or cell not in self._open_runs:
            for older_run in self._client.search_runs(
                [self._experiment_id], f"tags.`{_CELL_TAG}` = '{cell.stem}'"
            ):
                self._client.delete_run(older_run.info.run_id)
            tags = {**_ANONYMOUS_TAGS, _CELL_TAG: cell.stem}
            run = self._client.create_run(self._experiment_id, tags=tags, run_name=cell.stem)
            self._open_runs[cell] = run.info.run_id
        return self._open_runs[cell]

    def _log_metrics(self, run_id: str, step: int, numbers: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(run_id, metrics=metrics)

    def _log_facts(self, run_id: str, params: dict[str, str], tags: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        items: Any = [Param(*item) for item in params.items()]
        self._client.log_batch(run_id, params=items, tags=[RunTag(*item) for item in tags.items()])


def _create_database(path: Path) -> None:
    """Create an empty database atomically, because MLflow cannot repair an incomplete one.

    The first connection also sets the artifact location of the default experiment. The process of
    a killed run may still be creating one, so the unfinished file has the process id in its name.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in path.parent.glob(f"{path.name}.unfinished*"):
        leftover.unlink(missing_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    store: Any = SqlAlchemyStore
    store(f"sqlite:///{unfinished}", _ARTIFACT_LOCATION).engine.dispose()
    unfinished.rename(path)


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@hookimpl
def toxbench_trackers() -> list[Tracker]:
    """Register MLflow, which is imported only when a run starts it."""
    return [
        Tracker(
            name="mlflow",
            start=MLflow,
            needs="mlflow",
            install='pip install "toxbench[mlflow]"',
            view=f"mlflow ui --backend-store-uri sqlite:///{{folder}}/{_DATABASE}",
            patience=120,  # the first start creates about seventy tables, one by one
        )
    ]
