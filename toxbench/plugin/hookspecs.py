"""The hooks of toxbench. A plugin is a module with some of these functions, marked @hookimpl.

The module is an entry point of the group ``toxbench``. A function may omit arguments that it does
not use. A plugin with a marked function of another name, or with other arguments, is refused as a
whole. Hook wrappers around other plugins are never called.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from toxbench.plugin.baseline import Baseline
    from toxbench.plugin.contracts import Backbone, ReportFormat, Tracker
    from toxbench.records import CellKey, CellRecord, EpochRecord, RunRecord

hookspec = pluggy.HookspecMarker("toxbench")
hookimpl = pluggy.HookimplMarker("toxbench")


@hookspec
def toxbench_backbones() -> "Iterable[Backbone]":  # type: ignore[empty-body]
    """Return the backbones of this plugin.

    Called once in each process that loads plugins, and before that in a process that only tries
    it. Therefore import torch in `Backbone.build`, not before.

    Returns:
        `toxbench.Backbone` objects. They are built only when a run uses them.

    On errors: an exception, an object of another type or an invalid name is reported as one
    warning, and all objects that this hook of the plugin returned are ignored. A name that two
    plugins return is refused for both.
    """


@hookspec
def toxbench_baselines() -> "Iterable[Baseline]":  # type: ignore[empty-body]
    """Return the baselines of this plugin; a run scores all by default, except those on request.

    Called when plugins are loaded, like `toxbench_backbones`.

    Returns:
        `toxbench.Baseline` objects. Their ``fit`` gets the train rows only.

    On errors: as for `toxbench_backbones`. An exception in ``fit`` fails only the baseline's own
    cells.
    """


@hookspec
def toxbench_report_formats() -> "Iterable[ReportFormat]":  # type: ignore[empty-body]
    """Return the leaderboard formats of this plugin, for ``--format NAME``.

    Called when plugins are loaded, like `toxbench_backbones`.

    Returns:
        `toxbench.ReportFormat` objects. Text in a table is not escaped: ``render`` escapes it.

    On errors: as for `toxbench_backbones`.
    """


@hookspec
def toxbench_trackers() -> "Iterable[Tracker]":  # type: ignore[empty-body]
    """Return the trackers of this plugin; a run starts those named after ``--trackers``.

    Called when plugins are loaded, like `toxbench_backbones`. The code of a tracker itself runs
    only with ``--trackers NAME``, in a separate process.

    Returns:
        `toxbench.Tracker` objects, whose ``start`` returns an object with the event hooks below.

    On errors: as for `toxbench_backbones`.
    """


@hookspec
def toxbench_run_started(run: "RunRecord") -> None:
    """Handle the start of a run, for example to name and tag it in a tracker.

    Called before the first cell, once by ``toxbench run`` and once for the cells at the end of
    ``toxbench tune``; in the main process, and for trackers in their own process.

    Args:
        run: table and protocol, and the limits of its scores (synthetic, exploratory). It holds no
            comment and no folder.

    On errors: an exception is reported as a warning, and the run continues. The argument is a
    copy, so changing it has no effect.
    """


@hookspec
def toxbench_epoch_finished(cell: "CellKey", epoch: "EpochRecord") -> None:
    """Handle the end of a training epoch, for example for live plots and progress.

    Called in the main process, by ``toxbench run`` and by the cells at the end of ``toxbench
    tune``, after each epoch, in the order in which epochs end: cells that are trained in parallel
    alternate. If memory runs out, a cell starts again from its first epoch. There are no calls for
    baselines, for cells that are already stored, and for the trials of a search.

    Args:
        cell: candidate, fold, seed and digest of settings of the cell in training.
        epoch: its number from 1, train loss, scores of the validation rows and seconds.

    On errors: an exception is reported as a warning, the training continues, and the hook is called
    again after the next epoch. Both arguments are copies, so changing them has no effect. The
    training waits for the hook to return.
    """


@hookspec
def toxbench_cell_finished(result: "CellRecord") -> None:
    """Handle a cell that was just stored, of a backbone or of a baseline.

    Called in the main process, by ``toxbench run`` and by the cells at the end of ``toxbench
    tune``, once for each computed cell. There are no calls for cells that failed or that were
    already stored.

    Args:
        result: all numbers of the cell: key, settings, weights, metrics of every part and
            threshold rule, epochs, cost and environment. It holds no comment and no row.

    On errors: an exception is reported as a warning; the result remains stored. The argument is a
    copy, so changing it has no effect.
    """
