"""``toxbench tune``, end to end: searches, tuned settings, and one evaluation on the test rows."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.storages import RDBStorage

from toxbench.benchmark.candidates import BackboneCandidate, BaselineCandidate
from toxbench.benchmark.environment import describe_code
from toxbench.benchmark.feedback import TuneFeedback
from toxbench.benchmark.plan import Plan, check_length, make_plan
from toxbench.benchmark.resources import executor_for_trials
from toxbench.benchmark.run import run_plan
from toxbench.benchmark.validate import ResolvedRun, resolve
from toxbench.config import (
    build_run_settings,
    build_settings,
    command_line,
    get_preset,
    read_config,
)
from toxbench.errors import CellsFailedError, SettingsError
from toxbench.plugin.contracts import Choice, Dimension
from toxbench.plugin.registry import Registry
from toxbench.ranking.rows import Leaderboard
from toxbench.report.leaderboard import leaderboard_records
from toxbench.settings import RunSettings, TrainSettings, TuneSettings
from toxbench.store.manifest import record_code
from toxbench.store.repair import quarantine_damaged
from toxbench.store.trials import TUNED_FILE, TUNING, TrialStore, read_tuned
from toxbench.tuning.definition import SearchSpec, inner_data
from toxbench.tuning.results import write_outcome
from toxbench.tuning.search import Search
from toxbench.tuning.space import checked_space, parse_dimension
from toxbench.tuning.storage import check_url, database_errors, open_storage, sqlite_url
from toxbench.tuning.study import Worker

SEEDS = 5


@dataclass(frozen=True)
class TunePlan:
    """Checked searches, one for each backbone, that nothing was trained of yet."""

    plan: Plan
    definitions: tuple[SearchSpec, ...]
    settings: TuneSettings
    url: str
    seeds: int


@dataclass(frozen=True)
class Outcome:
    """What tuning ended with.

    Attributes:
        tuned: each backbone with the settings that were found for it.
        failures: one line for each search and each cell without a result.
        leaderboard: of all stored cells of the protocol.
    """

    tuned: tuple[BackboneCandidate, ...]
    failures: tuple[str, ...]
    leaderboard: Leaderboard


def with_tuning_seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    """Put more seeds below what the user set: one seed says little about tuned settings."""
    return {"seeds": SEEDS} | dict(config)


def plan_tuning(run: ResolvedRun, download: bool = True) -> TunePlan:
    """Read the table and find the weights; train and write nothing.

    Args:
        run: settings and plugins; the table ``tune`` of the settings configures the search.
        download: as `make_plan`.

    Raises:
        SettingsError, DataError, PluginError, StorageError, TryAgainError: before any work.
    """
    settings = run.settings
    tuning = build_settings(TuneSettings, settings.tune)
    untuned = replace(run, settings=settings.model_copy(update={"tuned": False}))
    plan = make_plan(untuned, download)
    if len(plan.protocol.folds) > 1:
        raise SettingsError(
            "tune needs one fold: with more, the rows that it chooses by would be test rows of "
            "another fold; leave out --folds, or name a split file of one fold"
        )
    data = inner_data(plan.protocol, plan.source.settings, tuning.tune_seed)
    folder = plan.store.folder / TUNING
    candidates = [c for c in plan.candidates if isinstance(c, BackboneCandidate)]
    if not candidates:
        raise SettingsError("no backbone to tune; name some: --backbones bert,distilbert")
    definitions = []
    for candidate in candidates:
        _check_looks(candidate)
        # An inner fold's last epoch is scored, so the last epoch is also what a run must keep.
        base = candidate.settings.model_copy(update={"selection": "last"})
        definitions.append(
            SearchSpec(
                candidate=replace(candidate, settings=base),
                device=plan.devices[candidate.title],
                space=_space(candidate, base, settings, tuning),
                data=data,
                settings=tuning,
                tuning=folder,
                fingerprint=plan.protocol.fingerprint,
            )
        )
    url = tuning.storage or sqlite_url(folder)
    check_url(url)
    plan = replace(plan, command=command_line("tune", settings))
    return TunePlan(plan, tuple(definitions), tuning, url, settings.seeds)


def _check_looks(candidate: BackboneCandidate) -> None:
    for name in ("eval_steps", "patience"):
        if getattr(candidate.settings, name):
            raise SettingsError(
                f"{name} is set for {candidate.name}; tune scores the last epoch of each training "
                "and ends bad ones itself (--pruner), so leave it out"
            )


def run_tuning(planned: TunePlan, feedback: TuneFeedback) -> Outcome:
    """Search for each backbone, write what was found, and evaluate it on the test rows.

    A search that finds nothing loses that backbone only.

    Raises:
        StorageError: the results folder cannot be written.
        TryAgainError: the database of studies cannot be reached.
    """
    plan = planned.plan
    for line in (*plan.write_protocol(), *_repair(plan.store.folder / TUNING)):
        feedback.warn(line)
    record_code(plan.store.folder, describe_code(plan.run.registry), plan.command)
    found: list[BackboneCandidate] = []
    failures: list[str] = []
    with _workplace(planned, feedback) as (storage, worker):
        for definition in planned.definitions:
            try:
                executor = executor_for_trials(plan, definition.settings.inner_folds)
                search = Search(definition, storage, worker, executor, feedback)
                tuned = write_outcome(definition, search.run())
            except CellsFailedError as error:
                feedback.warn(str(error))
                failures.append(str(error))
            else:
                found.append(replace(definition.candidate, settings=tuned.train, tuned=tuned))
    devices = {c.title: plan.devices[c.name] for c in found}
    baselines = (c for c in plan.candidates if isinstance(c, BaselineCandidate))
    final = replace(plan, devices=plan.devices | devices)
    final = final.with_candidates((*found, *baselines), planned.seeds)
    result = run_plan(final, feedback, patience=math.inf)
    lines = (*plan.run.unavailable, *failures, *map(str, result.failures))
    return Outcome(tuple(found), lines, result.leaderboard)


def _repair(tuning: Path) -> Iterator[str]:
    """Move aside what is damaged of a protocol's studies: it is found or made again.

    Raises:
        StorageError: the folder cannot be written, or a newer toxbench wrote to it.
    """
    for path in sorted(tuning.glob("*/trials")) + sorted(tuning.glob("*/finalists-*")):
        yield from TrialStore(path).repair()
    files = sorted(tuning.glob(f"*/{TUNED_FILE}"))
    yield from quarantine_damaged(files, read_tuned, "the end of its search writes it again")


@contextmanager
def _workplace(planned: TunePlan, feedback: TuneFeedback) -> Iterator[tuple[RDBStorage, Worker]]:
    """Open the database, as a worker that others can see die."""
    folder = planned.plan.store.folder / TUNING
    storage, warning = open_storage(planned.url, folder)
    if warning:
        feedback.warn(warning)
    try:
        with Worker(folder / ".workers") as worker, database_errors(planned.url):
            yield storage, worker
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _space(
    candidate: BackboneCandidate, base: TrainSettings, settings: RunSettings, tuning: TuneSettings
) -> dict[str, Dimension]:
    """Return what is searched: the plugin's space without what the user set, and the user's own."""
    own = settings.backbone.get(candidate.name, {})
    fixed = {*get_preset(settings.preset).train, *settings.train, *own}
    declared = {**candidate.backbone.search_space, **candidate.weights.search_space}
    kept = {name: dimension for name, dimension in declared.items() if name not in fixed}
    asked = {name: parse_dimension(name, value) for name, value in tuning.space.items()}
    space = checked_space({**kept, **asked}, base, f"search space of {candidate.name}")
    lengths = space.get("max_length")
    if lengths is not None:
        longest = lengths.values if isinstance(lengths, Choice) else [lengths.high]
        for length in longest:
            longest_settings = base.model_copy(update={"max_length": length})
            check_length(candidate.name, candidate.weights, longest_settings)
    return space


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
    merged = build_run_settings(with_tuning_seeds(below), flags)
    run = resolve(merged, Registry.discover(merged.plugins))
    outcome = run_tuning(plan_tuning(run), TuneFeedback())
    if outcome.failures:
        raise CellsFailedError("; ".join(outcome.failures))
    return pd.DataFrame(list(leaderboard_records(outcome.leaderboard)))
