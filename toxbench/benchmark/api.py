"""The Python API. The command line calls the same functions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toxbench.benchmark.feedback import Feedback
from toxbench.benchmark.plan import make_plan
from toxbench.benchmark.resume import read_table_of
from toxbench.benchmark.run import run_plan
from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings, build_settings, read_config
from toxbench.errors import CellsFailedError
from toxbench.evaluation.definitions import HALF
from toxbench.plugin.registry import Registry
from toxbench.ranking.build import load_leaderboard
from toxbench.ranking.rescore import rescore as score_again
from toxbench.ranking.rows import Leaderboard
from toxbench.report.leaderboard import compare_candidates, leaderboard_records
from toxbench.settings import ColumnSettings, SplitSettings
from toxbench.store.cells import find_store


def run(
    data: Path | str | None = None,
    *,
    backbones: Sequence[str] | None = None,
    baselines: Sequence[str] | None = None,
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
) -> pd.DataFrame:
    """Compare backbones on a table and return the leaderboard.

    What is stored already is not trained again. What is None comes from ``config``, else from the
    defaults that `toxbench.settings.RunSettings` names.

    Args:
        data: CSV, TSV, Parquet or JSON lines; default the synthetic sample.
        backbones: names of registered backbones; default bert and distilbert.
        baselines: names of registered baselines; default all of them.
        seeds: cells of each backbone, with seeds 0 to ``seeds - 1``; default 1.
        weights: ``auto`` (default), ``hub``, ``stand-in``, and ``NAME=PATH`` for one backbone.
        device: ``auto`` (default), ``cuda``, ``mps`` or ``cpu``.
        results: folder below which each protocol has its own; default ``results``.
        preset: ``notebook`` for the original study's recipe.
        config: TOML file with the same keys; what is passed here wins.
        columns: ``text_column``, ``id_column``, ``group_column``, ``labels``, ``encoding``,
            ``true_values``, ``false_values`` (words that labels may hold), ``drop_empty``.
        train: fields of `toxbench.TrainSettings` for all backbones.
        split: fields of `toxbench.settings.SplitSettings`: ``split``, ``folds``, ``split_file``,
            ``test``, ``valid``, ``split_column``, ``test_size`` and more.
        tuned: each backbone once more, with the settings that `toxbench.tune` found.
        workers: cells computed at once, in processes; default what pays.
        executor: ``local`` (default: this machine) or ``ray``; results are the same.
        ray_address: of a Ray cluster: ``auto`` or ``HOST:PORT``; default a
            Ray of its own on this machine.
        cpus_per_cell: threads, and Ray's CPUs, of a cell; default cores shared among ``workers``.
        gpus_per_cell: share of a GPU that a cell on CUDA gets, in (0, 1]; default 1.
        cell_timeout: what a cell may take, such as ``30m``; default any time.
        checkpoint_every: training time after which a cell's state is kept, to go on from it after
            an interruption; default ``10m``.
        save_models: ``best`` (default: of each backbone the model that is best on validation
            rows), ``all`` or ``none``.
        plugins: of other distributions that may load, by the names of their entry points;
            default all that are installed.
        resume: only go on with stored results of this very table and split, or raise.
        trackers: names of trackers that are told of epochs and cells; default none.

    Returns:
        one row for each candidate, the highest mean test micro-F1 first; see `leaderboard`.

    Raises:
        toxbench.errors.ToxbenchError: with an exit code; `CellsFailedError` when some cells
            failed, after all others were stored.
    """
    given = {
        "data": data,
        "backbones": backbones,
        "baselines": baselines,
        "seeds": seeds,
        "weights": weights,
        "device": device,
        "results": results,
        "preset": preset,
        "columns": columns,
        "train": train,
        "split": split,
        "tuned": tuned,
        "workers": workers,
        "executor": executor,
        "ray_address": ray_address,
        "cpus_per_cell": cpus_per_cell,
        "gpus_per_cell": gpus_per_cell,
        "cell_timeout": cell_timeout,
        "checkpoint_every": checkpoint_every,
        "save_models": save_models,
        "plugins": plugins,
        "resume": resume,
        "trackers": trackers,
    }
    flags = {name: value for name, value in given.items() if value is not None}
    settings = build_run_settings(read_config(Path(config)) if config is not None else {}, flags)
    resolved = resolve(settings, Registry.discover(settings.plugins))
    result = run_plan(make_plan(resolved), Feedback())
    problems = [*resolved.unavailable, *map(str, result.failures)]
    if problems:
        raise CellsFailedError("; ".join(problems))
    return _as_frame(result.leaderboard)


def leaderboard(path: Path | str) -> pd.DataFrame:
    """Return a stored leaderboard as unrounded numbers.

    Args:
        path: a protocol's folder, or a results folder that holds exactly one.

    Returns:
        one row for each candidate with ``rank``, ``candidate``, ``weights``, ``parameters``,
        ``seeds``, and a mean and a sample standard deviation (``_sd``) for each score in [0, 1],
        for gaps (train minus test), seconds, comments per second and bytes.

    Raises:
        toxbench.errors.StorageError: nothing is stored there, or it is damaged.
    """
    return _as_frame(load_leaderboard(find_store(Path(path))))


def compare(path: Path | str, *candidates: str) -> pd.DataFrame:
    """Return the paired differences of every pair of some candidates.

    Args:
        path: as `leaderboard`.
        candidates: as the leaderboard names them; none: all.

    Returns:
        one row for each pair and metric (``micro_f1``, ``subset_accuracy``): ``first``,
        ``second``, ``difference``, its 95 % interval ``low`` to ``high``, ``p`` and ``p_holm``,
        ``first_better`` (a probability), ``detectable`` and ``clear``.

    Raises:
        toxbench.errors.SettingsError: there is no such candidate, or only one.
        toxbench.errors.StorageError: as `leaderboard`.
    """
    board = load_leaderboard(find_store(Path(path)))
    return pd.DataFrame(list(compare_candidates(board, candidates).records))


def rescore(
    path: Path | str,
    *,
    thresholds: str = HALF,
    metric: str = "micro_f1",
    without: Sequence[str] = (),
    data: Path | str | None = None,
    columns: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return a leaderboard of stored probabilities with other thresholds, metric or labels.

    Args:
        path: as `leaderboard`.
        thresholds: rule: ``0.5``, ``global`` or ``per-label``.
        metric: to rank by; see ``toxbench metrics``.
        without: labels to leave out.
        data: the table that was run; results of another one, or of this one before it changed,
            are refused.
        columns: as in `run`, to read it.
        split: its ``valid`` and ``test``, if it was run with them.

    Returns:
        as `leaderboard`.

    Raises:
        toxbench.errors.DataError: ``data`` is not the table of these results.
        toxbench.errors.SettingsError: there is no such rule, metric or label.
        toxbench.errors.StorageError: as `leaderboard`.
    """
    store = find_store(Path(path))
    if data is not None:
        column_settings = build_settings(ColumnSettings, columns or {})
        split_settings = build_settings(SplitSettings, split or {})
        read_table_of(store.protocol(), Path(data), column_settings, split_settings)
    board = score_again(store, thresholds, without, metric)
    return _as_frame(board)


def _as_frame(board: Leaderboard) -> pd.DataFrame:
    return pd.DataFrame(list(leaderboard_records(board)))
