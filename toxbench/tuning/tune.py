"""``toxbench tune``: the searches, the tuned settings, and their evaluation on the test rows."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.storages import RDBStorage

from toxbench.benchmark.candidates import BackboneCandidate, BaselineCandidate, Candidate
from toxbench.benchmark.plan import Plan, check_length, make_plan
from toxbench.benchmark.progress import TuneFeedback
from toxbench.benchmark.resources import describe_code, executor_for_trials
from toxbench.benchmark.run import run_plan
from toxbench.benchmark.validate import ResolvedRun
from toxbench.config import build_settings, command_line, get_preset
from toxbench.errors import CellsFailedError, SettingsError
from toxbench.plugin.contracts import Choice, Dimension
from toxbench.ranking.rows import Leaderboard
from toxbench.records import TunedSettings
from toxbench.settings import RunSettings, TuneSettings
from toxbench.store.folder import quarantine_damaged
from toxbench.store.manifest import record_code
from toxbench.store.trials import TUNED_FILE, TUNING, TrialStore, read_tuned
from toxbench.tuning.results import write_results
from toxbench.tuning.search import Search
from toxbench.tuning.space import check_space, parse_dimension
from toxbench.tuning.spec import SearchSpec, make_inner_data
from toxbench.tuning.storage import check_url, database_errors, open_storage, sqlite_url
from toxbench.tuning.study import Worker

TUNE_DEFAULTS = {"seeds": 5}  # one seed is too few for tuned settings

SearchOutcome = tuple[SearchSpec, TunedSettings]


@dataclass(frozen=True)
class TunePlan:
    """Checked searches before their start.

    Attributes:
        plan: of the run that the searches belong to.
        specs: one search for each backbone.
        settings: of all searches.
        url: of the database of studies.
        seeds: number of seeds of the evaluation on the test rows.
    """

    plan: Plan
    specs: tuple[SearchSpec, ...]
    settings: TuneSettings
    url: str
    seeds: int


@dataclass(frozen=True)
class Outcome:
    """Tuned settings, failures and leaderboard.

    Attributes:
        tuned: the searches with a result, and the settings that they found.
        failures: one line for each search and each cell without a result.
        leaderboard: of all stored cells of the protocol.
    """

    tuned: tuple[SearchOutcome, ...]
    failures: tuple[str, ...]
    leaderboard: Leaderboard


def plan_tuning(run: ResolvedRun, download: bool = True) -> TunePlan:
    """Read the table, find the weights and check the searches, as `make_plan`.

    Trains and writes nothing. The table ``tune`` of the settings configures the search.

    Raises:
        SettingsError, DataError, PluginError, StorageError, TryAgainError: before any training.
    """
    settings = run.settings
    tuning = _tune_settings(settings)
    untuned = replace(
        run, settings=settings.model_copy(update={"tuned": False}), adaptations=("full",)
    )
    plan = make_plan(untuned, download)
    inner_data = [
        make_inner_data(plan.protocol, plan.source.settings, tuning.tune_seed, fold)
        for fold in range(len(plan.protocol.folds))
    ]
    folder = plan.store.folder / TUNING
    candidates = [c for c in plan.candidates if isinstance(c, BackboneCandidate)]
    if not candidates:
        raise SettingsError("no backbone to tune; name some: --backbones bert,distilbert")
    specs = []
    for candidate in candidates:
        _check_early_stopping(candidate)
        space = _build_space(candidate, settings, tuning)
        specs += [
            SearchSpec(
                candidate=candidate,
                device=plan.devices[candidate.title],
                space=space,
                data=data,
                settings=tuning,
                studies_folder=folder,
                fingerprint=plan.protocol.fingerprint,
                fold=fold,
            )
            for fold, data in enumerate(inner_data)
        ]
    if tuning.pick is not None and len(specs) > 1:
        raise SettingsError(
            f"--pick is for one search, not {len(specs)}: name one backbone, and omit --folds"
        )
    url = tuning.storage or sqlite_url(folder)
    check_url(url)
    plan = replace(plan, command=command_line("tune", settings))
    return TunePlan(plan, tuple(specs), tuning, url, settings.seeds)


def run_tuning(planned: TunePlan, feedback: TuneFeedback) -> Outcome:
    """Search for each backbone and fold, write tuned settings, and evaluate them on the test rows.

    The settings of a fold are searched without its test rows, and evaluated on these (nested cross
    validation). The default settings are evaluated as well, unless their training failed. A
    search without a result loses only its own backbone.

    Raises:
        SettingsError: the picked trial is not on the Pareto front.
        StorageError: the results folder cannot be written.
        TryAgainError: the database of studies cannot be reached.
    """
    plan = planned.plan
    for line in (*plan.write_protocol(), *_quarantine_damaged_files(plan.store.folder / TUNING)):
        feedback.warn(line)
    record_code(plan.store.folder, describe_code(plan.run.registry), plan.command)
    results: list[SearchOutcome] = []
    failures: list[str] = []
    with _open_worker(planned, feedback) as (storage, worker):
        for spec in planned.specs:
            try:
                executor = executor_for_trials(plan, spec.settings.inner_folds)
                search = Search(spec, storage, worker, executor, feedback)
                results.append((spec, write_results(spec, search.run())))
            except CellsFailedError as error:
                feedback.warn(str(error))
                failures.append(str(error))
    result = run_plan(_evaluation_plan(planned, results), feedback, patience=math.inf)
    lines = (*plan.run.unavailable, *failures, *map(str, result.failures))
    return Outcome(tuple(results), lines, result.leaderboard)


def _evaluation_plan(planned: TunePlan, results: Sequence[SearchOutcome]) -> Plan:
    """Plan the cells of tuned settings, of default settings that can be trained, and baselines."""
    plan = planned.plan
    candidates: list[Candidate] = []
    for candidate in plan.candidates:
        if isinstance(candidate, BaselineCandidate):
            candidates.append(candidate)
            continue
        found = [(spec, t) for spec, t in results if spec.candidate.name == candidate.name]
        if len(found) == len(plan.protocol.folds):
            tuned = tuple(settings for _, settings in found)
            candidates.append(found[0][0].candidate.with_tuned(tuned))
            if all(settings.tuning.default_score is not None for settings in tuned):
                candidates.append(candidate)
    devices = {c.title: plan.devices[c.name] for c in candidates}
    final = replace(plan, devices=plan.devices | devices)
    return final.with_candidates(tuple(candidates), planned.seeds)


def _tune_settings(settings: RunSettings) -> TuneSettings:
    """Build the settings of the searches; trials with several objectives are not pruned."""
    tuning = build_settings(TuneSettings, settings.tune)
    if not tuning.costs:
        if tuning.pick is not None:
            raise SettingsError(
                f"--pick {tuning.pick}: a search with one objective has no Pareto front; "
                "add --objectives metric,gap"
            )
        return tuning
    if tuning.pruner != "none" and "pruner" in tuning.model_fields_set:
        raise SettingsError(
            f"--pruner {tuning.pruner}: trials with several objectives are not pruned; omit it"
        )
    return tuning.model_copy(update={"pruner": "none"})


def _check_early_stopping(candidate: BackboneCandidate) -> None:
    """Refuse settings that evaluate or stop within a training."""
    for name in ("eval_steps", "patience"):
        if getattr(candidate.settings, name):
            raise SettingsError(
                f"{name} is set for {candidate.name}; tune scores the last epoch of each training "
                f"and ends bad trials itself (--pruner): omit {name}"
            )


def _build_space(
    candidate: BackboneCandidate, settings: RunSettings, tuning: TuneSettings
) -> dict[str, Dimension]:
    """Return the plugin's dimensions, except settings that the user fixed, and the user's."""
    backbone_settings = settings.backbone.get(candidate.name, {})
    fixed = {*get_preset(settings.preset).train, *settings.train, *backbone_settings}
    declared = {**candidate.backbone.search_space, **candidate.weights.search_space}
    defaults = {name: dimension for name, dimension in declared.items() if name not in fixed}
    overrides = {name: parse_dimension(name, value) for name, value in tuning.space.items()}
    base, name = candidate.settings, candidate.name
    space = check_space({**defaults, **overrides}, base, f"search space of {name}")
    lengths = space.get("max_length")
    if lengths is not None:
        max_lengths = lengths.values if isinstance(lengths, Choice) else [lengths.high]
        for length in max_lengths:
            length_settings = base.model_copy(update={"max_length": length})
            check_length(name, candidate.weights, length_settings)
    return space


def _quarantine_damaged_files(tuning: Path) -> Iterator[str]:
    """Move damaged files of a protocol's studies aside; yield one line for each.

    Raises:
        StorageError: the folder cannot be written, or a newer toxbench wrote to it.
    """
    for path in sorted(tuning.glob("*/trials")) + sorted(tuning.glob("*/finalists-*")):
        yield from TrialStore(path).repair()
    files = sorted(tuning.glob(f"*/{TUNED_FILE}"))
    yield from quarantine_damaged(files, read_tuned, "the end of its search writes it again")


@contextmanager
def _open_worker(planned: TunePlan, feedback: TuneFeedback) -> Iterator[tuple[RDBStorage, Worker]]:
    """Open the database of studies, and hold this worker's lock file until the context ends."""
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
