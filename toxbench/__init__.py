"""toxbench: an honest comparison of fine-tuned backbones on a small multi-label table.

Public names. `run` and `leaderboard` are what the command line calls; the rest is for plugins.
"""

from typing import TYPE_CHECKING, Any

from toxbench.plugin.backbone import Backbone, StandIn, Tensors, first_token_classifier
from toxbench.plugin.baseline import Baseline, Predict
from toxbench.plugin.formats import ReportFormat, Table
from toxbench.plugin.hookspecs import hookimpl
from toxbench.records import CellKey, CellRecord, EpochRecord
from toxbench.settings import TrainSettings

if TYPE_CHECKING:
    from toxbench.benchmark.api import leaderboard, run

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "Baseline",
    "CellKey",
    "CellRecord",
    "EpochRecord",
    "Predict",
    "ReportFormat",
    "StandIn",
    "Table",
    "Tensors",
    "TrainSettings",
    "first_token_classifier",
    "hookimpl",
    "leaderboard",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import the two functions that need torch or pandas only when they are asked for."""
    if name in {"leaderboard", "run"}:
        from toxbench.benchmark import api

        return getattr(api, name)
    raise AttributeError(f"module 'toxbench' has no attribute {name!r}")
