"""The sampler and the pruner of trials, built on Optuna's."""

import hashlib
import random
import warnings
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from toxbench.plugin.contracts import Dimension, Value
from toxbench.settings import TrainSettings, TuneSettings
from toxbench.tuning.space import default_values, make_grid, suggest_settings

PRUNING_STEPS = 4


class Sampler(BaseSampler):
    """An Optuna sampler that is seeded for each trial by the trial's number.

    A restarted search therefore does not repeat the random draws of earlier trials, and two workers
    never draw the same values.
    """

    def __init__(
        self, settings: TuneSettings, space: Mapping[str, Dimension], base: TrainSettings
    ) -> None:
        """Prepare the sampler without drawing; ``base`` has the default settings."""
        self._settings = settings
        self._space = space
        self._base = base
        self._points = grid_points(settings, space, base)
        self._fixed: Mapping[str, Value] | None = None
        self._inner: BaseSampler = RandomSampler()

    def sample_settings(self, trial: Trial, slot: int) -> TrainSettings:
        """Return the settings of a trial; its study must use this sampler.

        Slot 0 gets the default settings; those inside the space become parameters of the trial.
        The other slots get the points of the grid, or values from Optuna's sampler.
        """
        if slot == 0:
            self._fixed = default_values(self._space, self._base)
            suggest_settings(trial, {name: self._space[name] for name in self._fixed}, self._base)
            return self._base
        self._fixed = self._points[slot - 1] if self._points else None
        return suggest_settings(trial, self._space, self._base)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial."""
        self._fixed = None
        self._inner = self._make_inner(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the search space of Optuna's sampler; empty if the values are fixed."""
        if self._fixed is not None:
            return {}
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return values from Optuna's sampler; empty if the values are fixed."""
        if self._fixed is not None:
            return {}
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the fixed value, or a value from Optuna's sampler."""
        if self._fixed is not None:
            return self._fixed[param_name]
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def _make_inner(self, number: int) -> BaseSampler:
        text = f"{self._settings.tune_seed}:{number}"
        seed = int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:4], "little")
        if self._settings.sampler != "tpe":
            return RandomSampler(seed=seed)  # the points of a grid are fixed
        startup_trials = _count_startup_trials(self._settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # group, for conditional spaces
            return TPESampler(
                seed=seed, multivariate=True, group=True, n_startup_trials=startup_trials
            )


def grid_points(
    settings: TuneSettings, space: Mapping[str, Dimension], base: TrainSettings
) -> list[dict[str, Value]]:
    """Return the points of a grid in random order; empty for other samplers."""
    if settings.sampler != "grid":
        return []
    points = make_grid(space, base)
    random.Random(settings.tune_seed).shuffle(points)
    return points


def make_pruner(settings: TuneSettings) -> BasePruner:
    """Return the pruner; its steps are those of `pruning_step`, on the first inner fold."""
    if settings.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=PRUNING_STEPS, reduction_factor=2)
    if settings.pruner == "median":
        return MedianPruner(n_startup_trials=2)
    return NopPruner()


def pruning_step(epoch: int, epochs: int) -> int:
    """Return the number of quarters of a training that are finished after an epoch.

    Trials are compared at equal shares of their trainings. After the same number of epochs, a
    short training is further along its learning rate schedule and would win too often.
    """
    return PRUNING_STEPS * epoch // epochs


def _count_startup_trials(settings: TuneSettings) -> int:
    """Return the number of random trials before TPE: a third, at most Optuna's default of ten."""
    return min(10, max(3, (settings.trial_limit or 30) // 3))
