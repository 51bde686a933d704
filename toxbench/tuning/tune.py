"""``toxbench tune``, end to end: searches, tuned settings, and one evaluation on the test rows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from optuna.storages import RDBStorage

from toxbench.benchmark.candidate import BackboneCandidate, BaselineCandidate
from toxbench.benchmark.plan import Plan, check_length, make_plan
from toxbench.benchmark.run import Failure, Feedback, run_plan
from toxbench.errors import SettingsError
from toxbench.plugin.registry import Registry
from toxbench.plugin.space import Choice, Dimension
from toxbench.records import TunedSettings
from toxbench.settings import RunSettings, TrainSettings, TuneSettings, layered, preset
from toxbench.store.tuned import TUNING
from toxbench.tuning.definition import Definition
from toxbench.tuning.inner import inner_data
from toxbench.tuning.outcome import write_outcome
from toxbench.tuning.progress import SearchFeedback
from toxbench.tuning.search import Search
from toxbench.tuning.space import checked_space, parse_dimension
from toxbench.tuning.storage import check_url, database_errors, open_storage, sqlite_url
from toxbench.tuning.worker import Worker

SEEDS = 5


class TuneFeedback(Feedback, SearchFeedback, Protocol):
    """Hears of searches and of the cells at the end."""


@dataclass(frozen=True)
class TunePlan:
    """Checked searches, one for each backbone, that nothing was trained of yet."""

    plan: Plan
    definitions: tuple[Definition, ...]
    settings: TuneSettings
    url: str


def with_tuning_seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    """Put more seeds below what the user set: one seed says little about tuned settings."""
    return {"seeds": SEEDS} | dict(config)


def plan_tuning(settings: RunSettings, registry: Registry, download: bool = True) -> TunePlan:
    """Check settings, read the table, find the weights; train and write nothing.

    Args:
        settings: of the run; ``tune`` says how to search.
        registry: where backbones come from.
        download: as `make_plan`.

    Raises:
        SettingsError, DataError, PluginError, StorageError, TryAgainError: before any work.
    """
    tuning = layered(TuneSettings, settings.tune)
    plan = make_plan(settings.model_copy(update={"tuned": False}), registry, download)
    data = inner_data(plan.protocol, tuning.tune_seed)
    folder = plan.store.folder / TUNING
    candidates = [c for c in plan.candidates if isinstance(c, BackboneCandidate)]
    if not candidates:
        raise SettingsError("no backbone to tune; name some: --backbones bert,distilbert")
    definitions = []
    for candidate in candidates:
        # An inner fold's last epoch is scored, so the last epoch is also what a run must keep.
        base = candidate.settings.model_copy(update={"selection": "last"})
        definitions.append(
            Definition(
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
    return TunePlan(plan, tuple(definitions), tuning, url)


def run_tuning(
    planned: TunePlan, settings: RunSettings, registry: Registry, feedback: TuneFeedback
) -> tuple[list[TunedSettings], list[Failure]]:
    """Search for each backbone, write what was found, and evaluate it on the test rows.

    Returns:
        the tuned settings, and the cells that failed.

    Raises:
        CellsFailedError: a search has no result.
        StorageError: the results folder cannot be written.
        TryAgainError: the database of studies cannot be reached.
    """
    plan = planned.plan
    plan.store.prepare(plan.protocol, plan.synthetic)
    with _workplace(planned, feedback) as (storage, worker):
        tuned = [
            write_outcome(definition, Search(definition, storage, worker, feedback).run())
            for definition in planned.definitions
        ]
    final = make_plan(settings.model_copy(update={"tuned": True}), registry)
    return tuned, run_plan(_without_defaults(final), registry, feedback, patience=float("inf"))


@contextmanager
def _workplace(planned: TunePlan, feedback: TuneFeedback) -> Iterator[tuple[RDBStorage, Worker]]:
    """Open the database, as a worker that others can see die."""
    folder = planned.plan.store.folder / TUNING
    storage, warning = open_storage(planned.url, folder)
    if warning:
        feedback.warn(warning)
    worker = Worker(folder / ".workers")
    try:
        with database_errors(planned.url):
            yield storage, worker
    finally:
        worker.close()
        storage.remove_session()
        storage.engine.dispose()


def _space(
    candidate: BackboneCandidate, base: TrainSettings, settings: RunSettings, tuning: TuneSettings
) -> dict[str, Dimension]:
    """Return what is searched: the plugin's space without what the user set, and the user's own."""
    own = settings.backbone.get(candidate.name, {})
    fixed = {*preset(settings.preset).train, *settings.train, *own}
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


def _without_defaults(plan: Plan) -> Plan:
    """Leave out the candidates that were not tuned; baselines stay."""

    def stays(candidate: BackboneCandidate | BaselineCandidate) -> bool:
        return isinstance(candidate, BaselineCandidate) or candidate.tuned is not None

    return replace(
        plan,
        candidates=tuple(filter(stays, plan.candidates)),
        cells=tuple(cell for cell in plan.cells if stays(cell[0])),
        missing=tuple(cell for cell in plan.missing if stays(cell[0])),
    )
