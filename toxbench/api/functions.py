"""The functions of the Python API, which do what the commands do, and their progress display."""

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console, RenderableType
from rich.progress import Progress
from rich.text import Text

from toxbench.api.bench import Bench
from toxbench.benchmark.plan import make_plan
from toxbench.benchmark.progress import (
    BAR_COLUMNS,
    TIME_LEFT,
    LiveProgress,
    TextProgress,
    styled,
    terminal_progress,
)
from toxbench.benchmark.resume import read_matching_table
from toxbench.benchmark.run import run_plan
from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings, build_settings, results_folder, setting_layers
from toxbench.errors import CellsFailedError
from toxbench.evaluation.definitions import HALF, RANKING_METRIC, ROPE
from toxbench.plugin.registry import Registry
from toxbench.ranking.build import load_leaderboard
from toxbench.ranking.build import rescore as rescore_store
from toxbench.ranking.ensembles import load_ensemble_leaderboard
from toxbench.report.leaderboard import leaderboard_records
from toxbench.settings import ColumnSettings, RunSettings, SplitSettings
from toxbench.store.cache import use_cache
from toxbench.store.cells import find_store
from toxbench.tuning.tune import TUNE_DEFAULTS, plan_tuning, run_tuning


@contextmanager
def show_progress(enabled: bool) -> Iterator[TextProgress]:
    """Yield the progress of a run: shown in a notebook and on a terminal, else only logged."""
    if enabled and Console().is_jupyter:
        with NotebookBars(*BAR_COLUMNS, TIME_LEFT) as bars:
            yield LiveProgress(bars, bars.write, verbose=True)
    elif enabled and sys.stderr.isatty():
        with terminal_progress(logging.INFO) as progress:
            yield progress
    else:
        yield TextProgress()


class NotebookBars(Progress):
    """Lines and below them bars, in one output of a notebook's cell.

    A live display of rich itself would need ipywidgets in a notebook. This one is an output that
    is updated with each event. The bars disappear at the end.
    """

    _lines: tuple[Text, ...] = ()
    _handle: Any = None  # of IPython, of the output

    def start(self) -> None:
        """Show the output."""
        from IPython.display import display

        self._handle = display(self, display_id=True)

    def stop(self) -> None:
        """Remove the bars."""
        for task in self.task_ids:
            self.remove_task(task)
        self.refresh()

    def write(self, line: str, level: int) -> None:
        """Show a line above the bars."""
        if level >= logging.INFO:
            self._lines = (*self._lines, styled(line, level))
            self.refresh()

    def update(self, *arguments: Any, **values: Any) -> None:
        """Change a bar and show it."""
        super().update(*arguments, **values)
        self.refresh()

    def refresh(self) -> None:
        """Update the output."""
        if self._handle is not None:
            self._handle.update(self)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the lines and the bars."""
        return (*self._lines, *super().get_renderables())


def run(
    data: Any = None,
    *,
    text: str | None = None,
    labels: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
    baselines: Sequence[str] | None = None,
    adaptation: Sequence[str] | None = None,
    seeds: int | None = None,
    weights: str | Sequence[str] | None = None,
    device: str | None = None,
    results: Path | str | None = None,
    preset: str | None = None,
    config: Path | str | None = None,
    columns: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    tuned: bool | None = None,
    workers: int | None = None,
    executor: str | None = None,
    ray_address: str | None = None,
    cpus_per_cell: int | None = None,
    gpus_per_cell: float | None = None,
    cell_timeout: str | None = None,
    checkpoint_every: str | None = None,
    save_models: str | None = None,
    plugins: Sequence[str] | None = None,
    resume: bool | None = None,
    trackers: Sequence[str] | None = None,
    quoted: Path | str | None = None,
    progress: bool = True,
) -> Bench:
    """Compare backbones on a table.

    Stored cells are not trained again. An argument that is None is read from the environment,
    ``config`` or pyproject.toml, or has the default of `toxbench.settings.RunSettings`.

    Args:
        data: table of comments: a path or pattern of files, several paths, ``hf:NAME/CONFIG``, a
            pandas or polars DataFrame, a pyarrow Table, a Dataset of the library datasets, or a
            DatasetDict or other mapping of train, validation and test to tables, which is an
            official split; default the synthetic sample.
        text: name of the column of comments; default a usual name, such as ``text``.
        labels: names of the label columns; default all columns that look like labels.
        backbones: names of registered backbones, ids of the Hub (``organization/model@revision``)
            and folders (``./folder``); default bert and distilbert.
        baselines: names of registered baselines; default all but those on request.
        adaptation: which weights learn, each a candidate: ``full``, ``probe`` (a linear probe of
            the frozen encoder) and ``lora``; default ``full``, and ``probe`` without ``baselines``.
        seeds: number of cells of each backbone and fold, with seeds 0 to ``seeds - 1``; default 1.
        weights: ``auto`` (default), ``hub``, ``stand-in``, and ``NAME=PATH`` for one backbone.
        device: ``auto`` (default), ``cuda``, ``mps`` or ``cpu``.
        results: folder that contains a folder for each protocol; default ``results``.
        preset: ``notebook`` for the original study's recipe.
        config: TOML file with the same keys; arguments of this function take precedence.
        columns: fields of `toxbench.settings.ColumnSettings`: ``text_column``, ``labels``,
            ``labels_column``, ``positive_from``, ``unlabelled`` and more.
        train: fields of `toxbench.TrainSettings` for all backbones.
        split: fields of `toxbench.settings.SplitSettings`: ``split``, ``folds``, ``split_file``,
            ``test``, ``valid``, ``split_column``, ``test_size`` and more.
        tuned: also compare each backbone with the settings that `toxbench.tune` found.
        workers: number of cells computed at once, in worker processes; default the number that
            saves time.
        executor: ``local`` (default: this machine) or ``ray``; the results are the same.
        ray_address: of a Ray cluster: ``auto`` or ``HOST:PORT``; by default, Ray is started on
            this machine.
        cpus_per_cell: number of threads, and of Ray's CPUs, of a cell; default the number of
            cores divided by ``workers``.
        gpus_per_cell: share of a GPU for each cell on CUDA, in (0, 1]; default 1.
        cell_timeout: time limit of a cell, such as ``30m``; default no limit.
        checkpoint_every: training time between two checkpoints of a cell, from which an
            interrupted training resumes; default ``10m``.
        save_models: ``best`` (default: the model of each backbone with the highest score on
            validation rows), ``all`` or ``none``.
        plugins: names of entry points of other distributions that may be loaded; default all
            that are installed.
        resume: require stored results of this table and split, and resume them.
        trackers: names of trackers that log epochs and cells; default none.
        quoted: TOML file of scores of publications, which the stored leaderboard shows.
        progress: show progress and warnings in a notebook or on a terminal. They are logged under
            the name ``toxbench`` in any case, and nothing else is printed.

    Returns:
        the stored results of this table and split, those of earlier runs included.

    Raises:
        ToxbenchError: with the text and the exit code of the command; `CellsFailedError` if some
            cells failed, after all other cells were stored: `load` returns those.
    """
    arguments = {name: value for name, value in locals().items() if value is not None}
    del arguments["progress"]
    layers = setting_layers(None if config is None else Path(arguments.pop("config"))).values()
    settings = build_run_settings(*layers, _with_columns(arguments))
    resolved = resolve(settings, Registry.discover(settings.plugins))
    with use_cache(), show_progress(progress) as feedback:
        plan = make_plan(resolved)
        feedback.warn_all([*map(str, resolved.registry.problems), *plan.warnings])
        result = run_plan(plan, feedback)
    problems = [*resolved.unavailable, *map(str, result.failures)]
    if problems:
        raise CellsFailedError("; ".join(problems))
    return Bench(plan.store, result.leaderboard)


def _with_columns(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with ``text`` and ``labels`` moved into the table ``columns``."""
    fields = {"text": "text_column", "labels": "labels"}
    columns = {field: arguments[name] for name, field in fields.items() if name in arguments}
    others = {name: value for name, value in arguments.items() if name not in fields}
    return others | {"columns": {**others.get("columns", {}), **columns}} if columns else others


def tune(
    data: Any = None,
    *,
    tune: Mapping[str, Any] | None = None,
    config: Path | str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Bench:
    """Search hyperparameters, and evaluate the best settings on the test rows.

    The default settings are evaluated as well. Finished trials and cells are not trained again.

    Args:
        data: as `run`.
        tune: fields of `toxbench.settings.TuneSettings`: ``trials``, ``budget``, ``sampler``,
            ``pruner``, ``space`` and more.
        config: TOML file with the same keys; arguments have precedence over it.
        progress: as in `run`.
        settings: as `run`; training settings that are set are not searched, and ``seeds`` is 5
            unless it is set.

    Returns:
        as `run`.

    Raises:
        ToxbenchError: as `run`.
    """
    flags = {name: value for name, value in settings.items() if value is not None}
    flags |= {"data": data} if data is not None else {}
    flags |= {"tune": dict(tune)} if tune else {}
    layers = setting_layers(None if config is None else Path(config)).values()
    merged = build_run_settings(TUNE_DEFAULTS, *layers, _with_columns(flags))
    resolved = resolve(merged, Registry.discover(merged.plugins))
    with use_cache(), show_progress(progress) as feedback:
        planned = plan_tuning(resolved)
        feedback.warn_all([*map(str, resolved.registry.problems), *planned.plan.warnings])
        outcome = run_tuning(planned, feedback)
    if outcome.failures:
        raise CellsFailedError("; ".join(outcome.failures))
    return Bench(planned.plan.store, outcome.leaderboard)


def load(path: Path | str | None = None, *, ensembles: bool = False, rope: float = ROPE) -> Bench:
    """Return stored results.

    Args:
        path: folder of a protocol, or a results folder, of which the newest protocol is used;
            default the folder that `run` uses.
        ensembles: add averages of seeds and of candidates, from stored probabilities.
        rope: largest difference of scores that makes no difference in practice.

    Raises:
        StorageError: the folder contains no results, or they are damaged.
    """
    store = find_store(results_folder() if path is None else Path(path))
    load_board = load_ensemble_leaderboard if ensembles else load_leaderboard
    return Bench(store, load_board(store, rope=rope))


def leaderboard(path: Path | str | None = None, *, ensembles: bool = False) -> pd.DataFrame:
    """Return the leaderboard of stored results, as `Bench.leaderboard`; arguments as `load`."""
    return load(path, ensembles=ensembles).leaderboard


def compare(
    path: Path | str, *candidates: str, ensembles: bool = False, rope: float = ROPE
) -> pd.DataFrame:
    """Return the verdicts on pairs of candidates, as `Bench.compare`; arguments as `load`."""
    return load(path, ensembles=ensembles, rope=rope).compare(*candidates)


def rescore(
    path: Path | str,
    *,
    thresholds: str = HALF,
    metric: str = RANKING_METRIC,
    without: Sequence[str] = (),
    data: Any = None,
    columns: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return a leaderboard of stored probabilities for other thresholds, metrics or labels.

    Args:
        path: as `load`.
        thresholds: rule: ``0.5``, ``global``, ``accuracy`` or ``per-label``.
        metric: by which candidates are ranked; see ``toxbench metrics``.
        without: labels to leave out.
        data: the table of the results, to check that it has not changed since.
        columns: as in `run`, to read ``data``.
        split: ``valid`` and ``test``, if the run had them.

    Returns:
        as `Bench.leaderboard`.

    Raises:
        DataError: ``data`` is not the table of these results.
        SettingsError: an unknown rule, metric or label.
        StorageError: as `load`.
    """
    store = find_store(Path(path))
    if data is not None:
        source = build_settings(RunSettings, {"data": data}).data
        column_settings = build_settings(ColumnSettings, columns or {})
        split_settings = build_settings(SplitSettings, split or {})
        read_matching_table(store.protocol(), source, column_settings, split_settings)
    board = rescore_store(store, thresholds, without, metric)
    return pd.DataFrame(list(leaderboard_records(board)))
