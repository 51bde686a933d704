"""Every hook of toxbench. A plugin is a module with some of these functions, marked @hookimpl.

The module is found through an entry point of the group ``toxbench``. A function may leave out
arguments that it does not need. Marked functions of other names, and arguments that are not named
here, are refused, and the whole plugin with them; wrappers around other plugins are never called.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from toxbench.plugin.contracts import Backbone, Baseline, ReportFormat, Tracker
    from toxbench.records import CellKey, CellRecord, EpochRecord, RunRecord

hookspec = pluggy.HookspecMarker("toxbench")
hookimpl = pluggy.HookimplMarker("toxbench")


@hookspec
def toxbench_backbones() -> "Iterable[Backbone]":  # type: ignore[empty-body]
    """Return the backbones that this plugin brings.

    Called once in each process that loads plugins, by every command that asks what there is. So
    import torch in `Backbone.build`, not before.

    Returns:
        `toxbench.Backbone` objects. Nothing is built until a run asks for one.

    On errors: what it raises, and an object of another kind or with an impossible name, is one
    warning line, and nothing else of this hook of the plugin is offered. A name that two plugins
    claim is refused to both.
    """


@hookspec
def toxbench_baselines() -> "Iterable[Baseline]":  # type: ignore[empty-body]
    """Return the baselines that this plugin brings; every run scores all of them by default.

    Called when plugins are loaded, as `toxbench_backbones`.

    Returns:
        `toxbench.Baseline` objects. Their ``fit`` sees the train rows only.

    On errors: as for `toxbench_backbones`. What ``fit`` raises costs its own cells alone.
    """


@hookspec
def toxbench_report_formats() -> "Iterable[ReportFormat]":  # type: ignore[empty-body]
    """Return the ways to write a leaderboard that this plugin brings, for ``--format NAME``.

    Called when plugins are loaded, as `toxbench_backbones`.

    Returns:
        `toxbench.ReportFormat` objects. Names in a table are not escaped yet: ``render`` does it.

    On errors: as for `toxbench_backbones`.
    """


@hookspec
def toxbench_trackers() -> "Iterable[Tracker]":  # type: ignore[empty-body]
    """Return the trackers that this plugin brings; a run starts those that it is asked for.

    Called when plugins are loaded, as `toxbench_backbones`. A tracker's own code runs only with
    ``--trackers NAME``, in a process of its own.

    Returns:
        `toxbench.Tracker` objects, whose ``start`` returns a listener with the event hooks below.

    On errors: as for `toxbench_backbones`.
    """


@hookspec
def toxbench_run_started(run: "RunRecord") -> None:
    """Hear of a run before its first cell: for trackers, which name and tag by it.

    Called once by ``toxbench run`` and by the cells at the end of ``toxbench tune``, in the process
    that the user started, for trackers in their own.

    Args:
        run: table, protocol, and what to know before quoting its scores (synthetic, exploratory).
            It holds no comment and no folder.

    On errors: what it raises is a warning; the run goes on. It is a copy, so changing it changes
    nothing.
    """


@hookspec
def toxbench_epoch_finished(cell: "CellKey", epoch: "EpochRecord") -> None:
    """Hear of an epoch of a training that ended: for trackers, live plots and progress.

    Called in the process that the user started, by ``toxbench run`` and by the cells at the end of
    ``toxbench tune``, after each epoch, in the order in which epochs end: cells that are trained
    side by side alternate. Where memory runs out, a cell starts again from its first epoch.
    Baselines, cells that are stored already and the trials of a search have no epochs here.

    Args:
        cell: candidate, fold, seed and digest of settings of what is being trained.
        epoch: its number from 1, train loss, scores of the validation rows and seconds.

    On errors: what it raises is a warning; the training goes on, and the hook is called again after
    the next epoch. Both arguments are copies, so changing them changes nothing. The training waits
    until it returns.
    """


@hookspec
def toxbench_cell_finished(result: "CellRecord") -> None:
    """Hear of a cell that was just stored, of a backbone or of a baseline.

    Called in the process that the user started, by ``toxbench run`` and by the cells at the end of
    ``toxbench tune``, once for each cell that was computed. Cells that failed, and those that were
    stored before, are not told.

    Args:
        result: all numbers of the cell: key, settings, weights, metrics of every part and
            threshold rule, epochs, cost and environment. It holds no comment and no row.

    On errors: what it raises is a warning; the result stays stored. It is a copy, so changing it
    changes nothing.
    """
