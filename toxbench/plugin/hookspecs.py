"""Every hook of toxbench. A plugin is a module with some of these functions, marked @hookimpl."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from toxbench.plugin.backbone import Backbone
    from toxbench.plugin.baseline import Baseline
    from toxbench.plugin.formats import ReportFormat
    from toxbench.plugin.tracker import Tracker
    from toxbench.records import CellKey, CellRecord, EpochRecord, RunRecord

hookspec = pluggy.HookspecMarker("toxbench")
hookimpl = pluggy.HookimplMarker("toxbench")


@hookspec
def toxbench_backbones() -> "Iterable[Backbone]":  # type: ignore[empty-body]
    """Return the backbones that this plugin brings."""


@hookspec
def toxbench_baselines() -> "Iterable[Baseline]":  # type: ignore[empty-body]
    """Return the baselines that this plugin brings; every run scores all of them by default."""


@hookspec
def toxbench_report_formats() -> "Iterable[ReportFormat]":  # type: ignore[empty-body]
    """Return the ways to write a leaderboard that this plugin brings."""


@hookspec
def toxbench_trackers() -> "Iterable[Tracker]":  # type: ignore[empty-body]
    """Return the trackers that this plugin brings; a run starts those that it is asked for."""


@hookspec
def toxbench_run_started(run: "RunRecord") -> None:
    """Hear of a run before its first cell. What it raises is only warned of."""


@hookspec
def toxbench_epoch_finished(cell: "CellKey", epoch: "EpochRecord") -> None:
    """Hear of an epoch that ended, for trackers and plots. What it raises is only warned of."""


@hookspec
def toxbench_cell_finished(result: "CellRecord") -> None:
    """Hear of a cell that was just stored. What it raises is only warned of."""
