"""Who draws the trials, and who ends the bad ones. Both are Optuna's."""

import hashlib
import random
import warnings
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from toxbench.plugin.contracts import Dimension, Value
from toxbench.settings import TrainSettings, TuneSettings
from toxbench.tuning.space import default_values, draw, grid

PRUNING_STEPS = 4


class Sampler(BaseSampler):
    """Optuna's sampler of the settings, seeded anew for each trial by the trial's number.

    So a restart never repeats the draws of the start-up, and two workers never draw alike.
    """

    def __init__(
        self, settings: TuneSettings, space: Mapping[str, Dimension], base: TrainSettings
    ) -> None:
        """Draw nothing yet.

        Args:
            settings: of the search.
            space: checked dimensions.
            base: the default settings.
        """
        self._settings = settings
        self._space = space
        self._base = base
        self._points = grid_points(settings, space, base)
        self._fixed: Mapping[str, Value] | None = None
        self._inner: BaseSampler = RandomSampler()

    def settings_for(self, trial: Trial, slot: int) -> TrainSettings:
        """Return what a trial of the study that asks this sampler is to train.

        Slot 0 has the default settings; those that lie inside the space become its parameters.
        The others have the points of the grid, or what Optuna's sampler draws.
        """
        if slot == 0:
            self._fixed = default_values(self._space, self._base)
            draw(trial, {name: self._space[name] for name in self._fixed}, self._base)
            return self._base
        self._fixed = self._points[slot - 1] if self._points else None
        return draw(trial, self._space, self._base)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial."""
        self._fixed = None
        self._inner = self._make(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask Optuna's sampler."""
        if self._fixed is not None:
            return {}
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask Optuna's sampler."""
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
        """Return what is fixed, or ask Optuna's sampler."""
        if self._fixed is not None:
            return self._fixed[param_name]
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def _make(self, number: int) -> BaseSampler:
        text = f"{self._settings.tune_seed}:{number}"
        seed = int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:4], "little")
        if self._settings.sampler != "tpe":
            return RandomSampler(seed=seed)  # the points of a grid are fixed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # group, for conditional spaces
            return TPESampler(
                seed=seed, multivariate=True, group=True, n_startup_trials=_startup(self._settings)
            )


def grid_points(
    settings: TuneSettings, space: Mapping[str, Dimension], base: TrainSettings
) -> list[dict[str, Value]]:
    """Return the points of a grid in a random order; none where another sampler draws."""
    if settings.sampler != "grid":
        return []
    points = grid(space, base)
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
    """Return how many quarters of a training are over after an epoch.

    Trials are compared at equal shares of their own training: after the same number of epochs, a
    short one has gone further down its learning rate's schedule, and would win too often.
    """
    return PRUNING_STEPS * epoch // epochs


def _startup(settings: TuneSettings) -> int:
    """Return how many trials are drawn at random first: a third, at most Optuna's own ten."""
    return min(10, max(3, (settings.trial_limit or 30) // 3))
