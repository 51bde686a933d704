"""toxbench: a benchmark of fine-tuned backbones on small multi-label tables of comments.

This module holds the public names. `run`, `tune`, `load`, `rescore` and `predict` do what the
commands do; most other names are for plugins. Every error that a user can fix is a `ToxbenchError`.
"""

import logging
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from toxbench.errors import (
    CellsFailedError,
    DataError,
    NewerVersionError,
    PluginError,
    SettingsError,
    StorageError,
    ToxbenchError,
    TryAgainError,
    check_docstrings,
)
from toxbench.plugin.baseline import Baseline, BaselineContext, Predict, fit_logistic_regression
from toxbench.plugin.contracts import (
    Backbone,
    Choice,
    Range,
    ReportFormat,
    Space,
    StandIn,
    Table,
    Tensors,
    Tracker,
    cell_facts,
    cell_numbers,
    epoch_numbers,
    fine_tuning_space,
    minilm_as_roberta,
    minilm_as_roberta_config,
    minilm_config,
    spreadsheet_safe,
    stand_in_settings,
    stand_in_space,
)
from toxbench.plugin.hookspecs import hookimpl
from toxbench.records import CellKey, CellRecord, EpochRecord, RunRecord
from toxbench.settings import BaselineSettings, TrainSettings

if TYPE_CHECKING:
    from toxbench.api.bench import Bench
    from toxbench.api.functions import compare, leaderboard, load, rescore, run, tune
    from toxbench.inference.model import predict

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "Baseline",
    "BaselineContext",
    "BaselineSettings",
    "Bench",
    "CellKey",
    "CellRecord",
    "CellsFailedError",
    "Choice",
    "DataError",
    "EpochRecord",
    "NewerVersionError",
    "PluginError",
    "Predict",
    "Range",
    "ReportFormat",
    "RunRecord",
    "SettingsError",
    "Space",
    "StandIn",
    "StorageError",
    "Table",
    "Tensors",
    "ToxbenchError",
    "Tracker",
    "TrainSettings",
    "TryAgainError",
    "cell_facts",
    "cell_numbers",
    "compare",
    "epoch_numbers",
    "fine_tuning_space",
    "fit_logistic_regression",
    "hookimpl",
    "leaderboard",
    "load",
    "minilm_as_roberta",
    "minilm_as_roberta_config",
    "minilm_config",
    "predict",
    "rescore",
    "run",
    "spreadsheet_safe",
    "stand_in_settings",
    "stand_in_space",
    "tune",
]


# A program decides where the log goes; without a handler, Python would print warnings.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_MODULES = {
    "toxbench.api.bench": ("Bench",),
    "toxbench.api.functions": ("compare", "leaderboard", "load", "rescore", "run", "tune"),
    "toxbench.inference.model": ("predict",),
}


def __getattr__(name: str) -> Any:
    """Import what needs torch or pandas on first access; refuse ``python -OO``."""
    check_docstrings()
    for module, names in _MODULES.items():
        if name in names:
            with warnings.catch_warnings():
                # by tqdm, in a notebook without ipywidgets; toxbench shows progress itself
                warnings.filterwarnings("ignore", "IProgress not found")
                return getattr(import_module(module), name)
    raise AttributeError(f"module 'toxbench' has no attribute {name!r}")
