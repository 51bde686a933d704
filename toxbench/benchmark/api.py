"""The Python API. The command line calls the same functions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toxbench.benchmark.feedback import Feedback
from toxbench.benchmark.plan import make_plan
from toxbench.benchmark.resume import read_matching_table
from toxbench.benchmark.run import run_plan
from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings, build_settings, read_config
from toxbench.errors import CellsFailedError
from toxbench.evaluation.definitions import HALF, RANKING_METRIC, ROPE
from toxbench.plugin.registry import Registry
from toxbench.ranking.build import load_leaderboard
from toxbench.ranking.ensembles import load_ensemble_leaderboard
from toxbench.ranking.rescore import rescore as rescore_store
from toxbench.ranking.rows import Leaderboard
from toxbench.report.leaderboard import compare_candidates, leaderboard_records
from toxbench.settings import ColumnSettings, SplitSettings
from toxbench.store.cells import find_store


def run(
    data: Path | str | None = None,
    *,
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
) -> pd.DataFrame:
    """Compare backbones on a table and return the leaderboard.

    Stored cells are not trained again. An argument that is None is read from ``config``, or has the
    default of `toxbench.settings.RunSettings`.

    Args:
        data: CSV, TSV, Parquet or JSON Lines file; default the synthetic sample.
        backbones: names of registered backbones; default bert and distilbert.
        baselines: names of registered baselines; default all of them.
        adaptation: which weights learn, each a candidate: ``full``, ``probe`` (a linear probe of
            the frozen encoder) and ``lora``; default ``full``, and ``probe`` without ``baselines``.
        seeds: number of cells of each backbone and fold, with seeds 0 to ``seeds - 1``; default 1.
        weights: ``auto`` (default), ``hub``, ``stand-in``, and ``NAME=PATH`` for one backbone.
        device: ``auto`` (default), ``cuda``, ``mps`` or ``cpu``.
        results: folder that contains a folder for each protocol; default ``results``.
        preset: ``notebook`` for the original study's recipe.
        config: TOML file with the same keys; arguments of this function take precedence.
        columns: ``text_column``, ``id_column``, ``group_column``, ``labels``, ``encoding``,
            ``true_values``, ``false_values`` (words for 1 and 0 in label columns), ``drop_empty``.
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

    Returns:
        one row for each candidate, the highest mean test micro-F1 first; see `leaderboard`.

    Raises:
        toxbench.errors.ToxbenchError: with an exit code; `CellsFailedError` if some cells
            failed, after all other cells were stored.
    """
    arguments = {name: value for name, value in locals().items() if value is not None}
    path = arguments.pop("config", None)
    settings = build_run_settings({} if path is None else read_config(Path(path)), arguments)
    resolved = resolve(settings, Registry.discover(settings.plugins))
    result = run_plan(make_plan(resolved), Feedback())
    problems = [*resolved.unavailable, *map(str, result.failures)]
    if problems:
        raise CellsFailedError("; ".join(problems))
    return _as_frame(result.leaderboard)


def leaderboard(path: Path | str, *, ensembles: bool = False) -> pd.DataFrame:
    """Return a stored leaderboard as unrounded numbers.

    Args:
        path: folder of a protocol, or a results folder that contains exactly one.
        ensembles: add averages of seeds and of candidates, from stored probabilities.

    Returns:
        one row for each candidate with ``rank``, ``candidate``, ``weights``, ``parameters``,
        ``seeds``, and a mean and a sample standard deviation (``_sd``) for each score in [0, 1],
        for gaps (train minus test), seconds, comments per second and bytes.

    Raises:
        toxbench.errors.StorageError: the folder contains no results, or they are damaged.
    """
    load = load_ensemble_leaderboard if ensembles else load_leaderboard
    return _as_frame(load(find_store(Path(path))))


def compare(
    path: Path | str, *candidates: str, ensembles: bool = False, rope: float = ROPE
) -> pd.DataFrame:
    """Return the paired differences of every pair of candidates.

    Args:
        path: as `leaderboard`.
        candidates: names on the leaderboard; default all.
        ensembles: as `leaderboard`.
        rope: largest difference of scores that makes no difference in practice.

    Returns:
        one row for each pair and score (``micro_f1`` and ``subset_accuracy``, also at tuned
        thresholds, and ``micro_average_precision``): ``first``, ``second``, ``difference``, its
        95 % interval ``low`` to ``high``, ``p`` and ``p_holm``, ``first_better`` and
        ``equivalent`` (probabilities), ``detectable``, and ``verdict`` for the first two scores.

    Raises:
        toxbench.errors.SettingsError: an unknown candidate, or only one candidate.
        toxbench.errors.StorageError: as `leaderboard`.
    """
    load = load_ensemble_leaderboard if ensembles else load_leaderboard
    board = load(find_store(Path(path)), rope=rope)
    return pd.DataFrame(list(compare_candidates(board, candidates).records))


def rescore(
    path: Path | str,
    *,
    thresholds: str = HALF,
    metric: str = RANKING_METRIC,
    without: Sequence[str] = (),
    data: Path | str | None = None,
    columns: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return a leaderboard of stored probabilities for other thresholds, metrics or labels.

    Args:
        path: as `leaderboard`.
        thresholds: rule: ``0.5``, ``global``, ``accuracy`` or ``per-label``.
        metric: by which candidates are ranked; see ``toxbench metrics``.
        without: labels to leave out.
        data: the table of the results, to check that it has not changed since.
        columns: as in `run`, to read ``data``.
        split: ``valid`` and ``test``, if the run had them.

    Returns:
        as `leaderboard`.

    Raises:
        toxbench.errors.DataError: ``data`` is not the table of these results.
        toxbench.errors.SettingsError: an unknown rule, metric or label.
        toxbench.errors.StorageError: as `leaderboard`.
    """
    store = find_store(Path(path))
    if data is not None:
        column_settings = build_settings(ColumnSettings, columns or {})
        split_settings = build_settings(SplitSettings, split or {})
        read_matching_table(store.protocol(), Path(data), column_settings, split_settings)
    return _as_frame(rescore_store(store, thresholds, without, metric))


def _as_frame(board: Leaderboard) -> pd.DataFrame:
    return pd.DataFrame(list(leaderboard_records(board)))
