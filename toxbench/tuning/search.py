"""The search for one backbone: trials, then the best and the default again with fresh seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import Trial

from toxbench.benchmark.feedback import SearchFeedback, SearchProgress
from toxbench.errors import CellsFailedError
from toxbench.executors.base import Executor
from toxbench.records import TrialRecord
from toxbench.settings import DEFAULT_TRIALS, INNER_FOLDS, TrainSettings, digest, parse_duration
from toxbench.store.trials import TrialStore
from toxbench.tuning.definition import UNLIMITED, SearchSpec
from toxbench.tuning.sampler import Sampler, make_pruner
from toxbench.tuning.study import Changed, SharedStudy, StopCriterion, Worker
from toxbench.tuning.trial import Configuration, TrialRunnerConfig, TrialScheduler

_FIRST_SEED = 10_001  # beyond the seeds of any run


@dataclass(frozen=True)
class SearchResult:
    """What a search ends with.

    Attributes:
        trials: all of the search.
        finalists: one list of trainings with fresh seeds for each configuration, the best first.
    """

    trials: Sequence[TrialRecord]
    finalists: Sequence[Sequence[TrialRecord]]

    @property
    def scores(self) -> list[float]:
        """Mean score of each finalist with fresh seeds."""
        return [_mean(group) for group in self.finalists]

    @property
    def default_place(self) -> int | None:
        """Which finalist has the default settings, from 0; None where they failed."""
        default = [record.settings for record in self.trials if record.is_default]
        places = [n for n, group in enumerate(self.finalists) if group[0].settings in default]
        return places[0] if places else None


class Search:
    """Runs one definition to its end, together with whoever else works on it."""

    def __init__(
        self,
        definition: SearchSpec,
        storage: RDBStorage,
        worker: Worker,
        executor: Executor,
        feedback: SearchFeedback,
    ) -> None:
        self._definition = definition
        self._settings = definition.settings
        self._storage = storage
        self._worker = worker
        self._feedback = feedback
        self._executor = executor

    def run(self) -> SearchResult:
        """Search, train the best and the default settings again, and return all of it.

        Raises:
            CellsFailedError: no trial, or no finalist, has a score.
            StorageError: records cannot be read or written.
        """
        name = self._definition.candidate.name
        trials = self._search()
        configurations = _configurations(trials, self._settings.finalists)
        if not configurations:
            raise CellsFailedError(f"every trial of {name} failed; the last: {trials[-1].reason}")
        finalists = self._finalists(configurations)
        if not finalists:
            raise CellsFailedError(f"every finalist of {name} failed; lower the learning rates")
        return SearchResult(trials, finalists)

    def _search(self) -> list[TrialRecord]:
        definition = self._definition
        sampler = Sampler(self._settings, definition.space, definition.candidate.settings)
        pruner = make_pruner(self._settings)
        index = self._index(definition.name, "trials", sampler, pruner)
        budget = parse_duration(self._settings.budget) if self._settings.budget else math.inf
        folds = tuple(range(self._settings.inner_folds))
        records: list[TrialRecord] = []

        def configure(trial: Trial, slot: int) -> Configuration:
            return Configuration(
                settings=sampler.settings_for(trial, slot),
                seed=_FIRST_SEED,
                folds=folds,
                default=slot == 0,
                seconds_left=math.inf if slot == 0 else budget - _seconds(records),
            )

        def enough(finished: Sequence[TrialRecord]) -> bool:
            failed = [record for record in finished if record.state == "failed"]
            nothing_works = len(failed) == len(finished) >= DEFAULT_TRIALS
            return nothing_works or _seconds(finished) >= budget

        def changed(finished: Sequence[TrialRecord]) -> None:
            records[:] = finished
            self._tell(records, "search", definition.wanted, budget)

        self._work(index, definition.wanted, enough, configure, changed, records)
        return records

    def _finalists(self, configurations: Sequence[TrainSettings]) -> list[list[TrialRecord]]:
        """Train each with fresh seeds, on other inner folds while there are any; best first."""
        definition, count = self._definition, self._settings.inner_folds
        key = digest([settings.model_dump(mode="json") for settings in configurations])
        name = f"finalists-{key}"
        index = self._index(f"{definition.name}-{name}", name, RandomSampler(), NopPruner())
        folds = tuple((fold + count) % INNER_FOLDS for fold in range(count))
        wanted = len(configurations) * self._settings.finalist_seeds
        stores = map(TrialStore, sorted(definition.folder.glob("finalists-*")))
        known = [record for store in stores for record in store.records()]

        def configure(trial: Trial, slot: int) -> Configuration:
            seed, place = divmod(slot, len(configurations))
            settings = configurations[place]
            default = settings == definition.candidate.settings
            return Configuration(settings, _FIRST_SEED + 1 + seed, folds, default)

        records: list[TrialRecord] = []

        def changed(finished: Sequence[TrialRecord]) -> None:
            records[:] = finished
            self._tell(records, "finalists", wanted, math.inf)

        self._work(index, wanted, lambda _: False, configure, changed, known)
        groups = [
            [record for record in records if record.settings == settings]
            for settings in configurations
        ]
        whole = [group for group in groups if all(r.value is not None for r in group)]
        return sorted(whole, key=_mean, reverse=True)

    def _work(
        self,
        index: SharedStudy,
        wanted: int,
        enough: StopCriterion,
        configure: Callable[[Trial, int], Configuration],
        changed: Changed,
        known: Sequence[TrialRecord],
    ) -> None:
        """Let the executor train trials; what ``known`` holds already is not trained again."""
        work = TrialScheduler(self._definition, index, self._feedback)
        tasks = work.tasks(index.draw(wanted, enough, changed), configure, known)
        try:
            self._executor.compute(TrialRunnerConfig(data=self._definition.data), tasks, work)
        finally:
            index.close()
        changed(index.sync())

    def _index(
        self, name: str, folder: str, sampler: BaseSampler, pruner: BasePruner
    ) -> SharedStudy:
        store = TrialStore(self._definition.folder / folder)
        return SharedStudy(name, self._storage, store, self._worker, sampler, pruner)

    def _tell(self, records: Sequence[TrialRecord], phase: str, wanted: int, budget: float) -> None:
        """Say how far the search is."""
        values = [record.value for record in records if record.value is not None]
        left = budget - _seconds(records)
        if records and wanted < UNLIMITED:
            left = min(left, (wanted - len(records)) * _seconds(records) / len(records))
        self._feedback.search_progress(
            SearchProgress(
                backbone=self._definition.candidate.name,
                phase=phase,
                finished=len(records),
                limit=wanted if wanted < UNLIMITED else None,
                pruned=sum(record.state == "pruned" for record in records),
                failed=sum(record.state == "failed" for record in records),
                best=max(values, default=None),
                seconds_left=max(0.0, left) if math.isfinite(left) else None,
            )
        )


def _configurations(records: Sequence[TrialRecord], count: int) -> list[TrainSettings]:
    """Return the settings of the complete trials of the highest values, each only once.

    The default settings are always among them, behind the best if need be, unless they failed:
    so what wins is compared with them under the same seeds and folds.
    """
    complete = [record for record in records if record.value is not None]
    ranked = sorted(complete, key=lambda record: (-(record.value or 0.0), record.number))
    different = list(dict.fromkeys(record.settings for record in ranked))
    default = [record.settings for record in ranked if record.is_default]
    return different[:count] + [settings for settings in different[count:] if settings in default]


def _mean(group: Sequence[TrialRecord]) -> float:
    return fmean(record.value or 0.0 for record in group)


def _seconds(records: Sequence[TrialRecord]) -> float:
    return math.fsum(record.seconds for record in records)
