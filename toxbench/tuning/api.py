"""The Python API of tuning. The command line calls the same functions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from toxbench.benchmark.api import Silent, leaderboard
from toxbench.benchmark.feedback import SearchProgress
from toxbench.config import read_config, run_settings
from toxbench.errors import CellsFailedError
from toxbench.plugin.registry import Registry
from toxbench.records import EpochRecord, TrialRecord
from toxbench.tuning.tune import plan_tuning, run_tuning, with_tuning_seeds


class SilentSearch(Silent):
    """Feedback that says nothing of a search either."""

    def trial_started(self, backbone: str, number: int, default: bool, epochs: int) -> None:
        """Say nothing."""

    def trial_epoch(self, number: int, epoch: EpochRecord) -> None:
        """Say nothing."""

    def trial_finished(self, backbone: str, record: TrialRecord) -> None:
        """Say nothing."""

    def search_progress(self, progress: SearchProgress) -> None:
        """Say nothing."""


def tune(
    data: Path | str | None = None,
    *,
    tune: Mapping[str, Any] | None = None,
    config: Path | str | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Search hyperparameters, evaluate what was found, and return the leaderboard.

    What was finished already is not trained again. Afterwards ``run(..., tuned=True)`` puts the
    rows of the default settings beside the tuned ones.

    Args:
        data: CSV, TSV, Parquet or JSON lines; default the synthetic sample.
        tune: fields of `toxbench.settings.TuneSettings`: ``trials``, ``budget``, ``sampler``,
            ``pruner``, ``space`` and more.
        config: TOML file with the same keys; what is passed here wins.
        settings: as `toxbench.run`; training settings that are set are not searched, and
            ``seeds`` is 5 unless it is set.

    Returns:
        as `toxbench.leaderboard`.

    Raises:
        toxbench.errors.ToxbenchError: with an exit code.
    """
    flags = {name: value for name, value in settings.items() if value is not None}
    flags |= {"data": data} if data is not None else {}
    flags |= {"tune": dict(tune)} if tune else {}
    below = read_config(Path(config)) if config is not None else {}
    asked = run_settings(with_tuning_seeds(below), flags)
    registry = Registry.discover(asked.plugins)
    planned = plan_tuning(asked, registry)
    outcome = run_tuning(planned, registry, SilentSearch())
    if outcome.failures:
        raise CellsFailedError("; ".join(outcome.failures))
    return leaderboard(planned.plan.store.folder)
