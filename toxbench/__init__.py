"""toxbench: a benchmark of fine-tuned backbones on small multi-label tables of comments.

This module holds the public names. The command line calls `run`, `tune`, `leaderboard`, `compare`,
`rescore` and `predict`; the other names are for plugins.
"""

from typing import TYPE_CHECKING, Any

from toxbench.errors import check_docstrings
from toxbench.plugin.contracts import (
    Backbone,
    Baseline,
    Choice,
    Predict,
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
from toxbench.settings import TrainSettings

if TYPE_CHECKING:
    from toxbench.benchmark.api import compare, leaderboard, rescore, run
    from toxbench.inference.predict import predict
    from toxbench.tuning.tune import tune

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "Baseline",
    "CellKey",
    "CellRecord",
    "Choice",
    "EpochRecord",
    "Predict",
    "Range",
    "ReportFormat",
    "RunRecord",
    "Space",
    "StandIn",
    "Table",
    "Tensors",
    "Tracker",
    "TrainSettings",
    "cell_facts",
    "cell_numbers",
    "compare",
    "epoch_numbers",
    "fine_tuning_space",
    "hookimpl",
    "leaderboard",
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


def __getattr__(name: str) -> Any:
    """Import the functions that need torch or pandas on first access; refuse ``python -OO``."""
    check_docstrings()
    if name in {"compare", "leaderboard", "rescore", "run"}:
        from toxbench.benchmark import api

        return getattr(api, name)
    if name == "predict":
        from toxbench.inference.predict import predict

        return predict
    if name == "tune":
        from toxbench.tuning.tune import tune

        return tune
    raise AttributeError(f"module 'toxbench' has no attribute {name!r}")
