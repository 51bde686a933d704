"""The search for one backbone: its trials, then its finalists with fresh seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import Trial

from toxbench.benchmark.progress import SearchFeedback, SearchProgress
from toxbench.errors import CellsFailedError, SettingsError
from toxbench.evaluation.curves import trial_front
from toxbench.executors.base import Executor
from toxbench.records import TrialRecord
from toxbench.settings import (
    DEFAULT_TRIALS,
    INNER_FOLDS,
    TrainSettings,
    TuneSettings,
    digest,
    parse_duration,
)
from toxbench.store.trials import TrialStore
from toxbench.tuning.spec import UNLIMITED, Sampler, SearchSpec, make_pruner
from toxbench.tuning.study import OnChange, SharedStudy, StopCriterion, Worker
from toxbench.tuning.trial import Configuration, TrialRunnerConfig, TrialScheduler

_FIRST_SEED = 10_001  # beyond the seeds of any run
ALL_FOLDS = tuple(range(INNER_FOLDS))


@dataclass(frozen=True)
class SearchResult:
    """The trials and finalists of a finished search.

    Attributes:
        trials: all trials of the search.
        finalists: the trainings of each finalist with fresh seeds; the first ones are those of the
            result, which is the best finalist or the trial that the user picked.
    """

    trials: Sequence[TrialRecord]
    finalists: Sequence[Sequence[TrialRecord]]

    @property
    def scores(self) -> list[float]:
        """Mean score of each finalist with fresh seeds."""
        return [_mean_score(group) for group in self.finalists]

    @property
    def default_index(self) -> int | None:
        """Index of the finalist with the default settings; None if they failed."""
        default = [record.settings for record in self.trials if record.is_default]
        indices = [n for n, group in enumerate(self.finalists) if group[0].settings in default]
        return indices[0] if indices else None


@dataclass(frozen=True)
class Search:
    """Runs a search to its end, together with all other workers on the same study."""

    spec: SearchSpec
    storage: RDBStorage
    worker: Worker
    executor: Executor
    feedback: SearchFeedback

    def run(self) -> SearchResult:
        """Search, then train the best or picked and the default settings with fresh seeds.

        Raises:
            CellsFailedError: no trial, or no finalist, has a score.
            SettingsError: the picked trial is not on the Pareto front.
            StorageError: records cannot be read or written.
        """
        name = self.spec.title
        trials = self._run_search()
        candidates = _choose_finalists(trials, self.spec.settings)
        if not candidates:
            raise CellsFailedError(f"every trial of {name} failed; the last: {trials[-1].reason}")
        finalists = self._run_finalists(candidates)
        if not finalists:
            raise CellsFailedError(f"every finalist of {name} failed; lower the learning rates")
        return SearchResult(trials, self._picked_first(finalists, candidates[0]))

    def _run_search(self) -> list[TrialRecord]:
        spec, settings = self.spec, self.spec.settings
        sampler = Sampler(settings, spec.space, spec.candidate.settings)
        study = self._open_study(spec.name, "trials", sampler, make_pruner(settings))
        budget = parse_duration(settings.budget) if settings.budget else math.inf
        folds = ALL_FOLDS[: settings.inner_folds]
        records: list[TrialRecord] = []

        def configure(trial: Trial, slot: int) -> Configuration:
            return Configuration(
                settings=sampler.sample_settings(trial, slot),
                seed=_FIRST_SEED,
                folds=folds,
                is_default=slot == 0,
                costs=settings.costs,
                seconds_left=math.inf if slot == 0 else budget - _sum_seconds(records),
            )

        def should_stop(finished: Sequence[TrialRecord]) -> bool:
            failed = [record for record in finished if record.state == "failed"]
            all_failed = len(failed) == len(finished) >= DEFAULT_TRIALS
            return all_failed or _sum_seconds(finished) >= budget

        def on_change(finished: Sequence[TrialRecord]) -> None:
            records[:] = finished
            self._report_progress(records, "search", spec.trial_limit, budget)

        self._run_trials(study, spec.trial_limit, should_stop, configure, on_change, records)
        return records

    def _run_finalists(self, candidates: Sequence[TrainSettings]) -> list[list[TrialRecord]]:
        """Train finalists with fresh seeds, on unused inner folds if any; return the best first."""
        spec = self.spec
        folds = ALL_FOLDS[-spec.settings.finalist_folds :]
        key = digest([folds, [settings.model_dump(mode="json") for settings in candidates]])
        name = f"finalists-{key}"
        study = self._open_study(f"{spec.name}-{name}", name, RandomSampler(), NopPruner())
        limit = len(candidates) * self.spec.settings.finalist_seeds
        stores = map(TrialStore, sorted(spec.folder.glob("finalists-*")))
        earlier_records = [record for store in stores for record in store.records()]

        def configure(trial: Trial, slot: int) -> Configuration:
            seed, index = divmod(slot, len(candidates))
            settings = candidates[index]
            is_default = settings == spec.candidate.settings
            costs = spec.settings.costs
            return Configuration(settings, _FIRST_SEED + 1 + seed, folds, is_default, costs)

        records: list[TrialRecord] = []

        def on_change(finished: Sequence[TrialRecord]) -> None:
            records[:] = finished
            self._report_progress(records, "finalists", limit, math.inf)

        self._run_trials(study, limit, lambda _: False, configure, on_change, earlier_records)
        groups = [
            [record for record in records if record.settings == settings] for settings in candidates
        ]
        complete = [group for group in groups if all(r.value is not None for r in group)]
        return sorted(complete, key=_mean_score, reverse=True)

    def _picked_first(
        self, finalists: Sequence[list[TrialRecord]], picked: TrainSettings
    ) -> Sequence[list[TrialRecord]]:
        """Move the finalist that the user picked, if there is one, to the first place."""
        pick = self.spec.settings.pick
        if pick is None:
            return finalists
        if all(group[0].settings != picked for group in finalists):
            raise CellsFailedError(f"trial {pick} of {self.spec.title} failed with new seeds")
        return sorted(finalists, key=lambda group: group[0].settings != picked)

    def _run_trials(
        self,
        study: SharedStudy,
        limit: int,
        should_stop: StopCriterion,
        configure: Callable[[Trial, int], Configuration],
        on_change: OnChange,
        records: Sequence[TrialRecord],
    ) -> None:
        """Compute trials with the executor; a training in ``records`` is not repeated."""
        scheduler = TrialScheduler(self.spec, study, self.feedback)
        sampled_trials = study.sample_trials(limit, should_stop, on_change)
        tasks = scheduler.tasks(sampled_trials, configure, records)
        try:
            config = TrialRunnerConfig(data=self.spec.data, metric=self.spec.settings.metric)
            self.executor.compute(config, tasks, scheduler)
        finally:
            study.close()
        on_change(study.sync())

    def _open_study(
        self, name: str, folder: str, sampler: BaseSampler, pruner: BasePruner
    ) -> SharedStudy:
        store = TrialStore(self.spec.folder / folder)
        costs = self.spec.settings.costs
        return SharedStudy(name, self.storage, store, self.worker, sampler, pruner, costs)

    def _report_progress(
        self, records: Sequence[TrialRecord], phase: str, limit: int, budget: float
    ) -> None:
        """Report finished trials, the best score and the estimate; ``budget`` is in seconds."""
        values = [record.value for record in records if record.value is not None]
        seconds_left = budget - _sum_seconds(records)
        if records and limit < UNLIMITED:
            mean = _sum_seconds(records) / len(records)
            seconds_left = min(seconds_left, (limit - len(records)) * mean)
        self.feedback.search_progress(
            SearchProgress(
                backbone=self.spec.title,
                phase=phase,
                finished=len(records),
                limit=limit if limit < UNLIMITED else None,
                pruned=sum(record.state == "pruned" for record in records),
                failed=sum(record.state == "failed" for record in records),
                best=max(values, default=None),
                seconds_left=max(0.0, seconds_left) if math.isfinite(seconds_left) else None,
            )
        )


def _choose_finalists(
    records: Sequence[TrialRecord], settings: TuneSettings
) -> list[TrainSettings]:
    """Return the distinct settings of the best complete trials, the best first.

    With several objectives these are the trials on the Pareto front, or the one that the user
    picked. The default settings are added at the end if they are not among the best, unless they
    failed, so that the winner is compared with them under the same seeds and folds.

    Raises:
        SettingsError: the picked trial is not on the front.
    """
    complete = [record for record in records if record.value is not None]
    candidates = trial_front(complete) if settings.costs else complete
    if settings.pick is not None and candidates:
        candidates = [_find_trial(candidates, settings.pick)]
    ranked = sorted(candidates, key=lambda record: (-(record.value or 0.0), record.number))
    distinct = list(dict.fromkeys(record.settings for record in ranked))
    default = [record.settings for record in complete if record.is_default]
    return list(dict.fromkeys([*distinct[: settings.finalists], *default]))


def _find_trial(front: Sequence[TrialRecord], number: int) -> TrialRecord:
    for record in front:
        if record.number == number:
            return record
    numbers = ", ".join(str(record.number) for record in front)
    raise SettingsError(
        f"--pick {number}: not a trial on the Pareto front of the search, which are {numbers}"
    )


def _mean_score(records: Sequence[TrialRecord]) -> float:
    return fmean(record.value or 0.0 for record in records)


def _sum_seconds(records: Sequence[TrialRecord]) -> float:
    return math.fsum(record.seconds for record in records)
