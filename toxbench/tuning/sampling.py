"""Who draws the trials, and who ends the bad ones. Both are Optuna's."""

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from toxbench.plugin.space import Dimension, Value
from toxbench.settings import TuneSettings
from toxbench.tuning.space import grid

PRUNING_STEPS = 4
DEFAULT = "default"  # user attribute of the trial that takes the default settings


class Sampler(BaseSampler):
    """Optuna's sampler of the settings, seeded anew for each trial by the trial's number.

    So a restart never repeats the draws of the start-up, and two workers never draw alike. The
    first trial takes the defaults, and so does the next one where that trial was lost:
    ``is_default`` tells of the trial that began last.
    """

    def __init__(
        self, settings: TuneSettings, space: Mapping[str, Dimension], defaults: Mapping[str, Value]
    ) -> None:
        self._settings = settings
        self._space = space
        self._defaults = defaults
        self._inner: BaseSampler = RandomSampler()
        self.is_default = False

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial."""
        self.is_default = not any(_has_defaults(t) for t in study.get_trials(deepcopy=False)
                                   if t.number < trial.number)  # fmt: skip
        if self.is_default:
            study._storage.set_trial_user_attr(trial._trial_id, DEFAULT, True)
            return
        self._inner = self._make(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask Optuna's sampler."""
        if self.is_default:
            return {}
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask Optuna's sampler."""
        if self.is_default:
            return {}
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # fmt: skip
        """Return the default, or ask Optuna's sampler."""
        if self.is_default:
            return self._defaults[param_name]
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def _make(self, number: int) -> BaseSampler:
        text = f"{self._settings.tune_seed}:{number}"
        seed = int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:4], "little")
        if self._settings.sampler == "random":
            return RandomSampler(seed=seed)
        if self._settings.sampler == "grid":
            # One seed for all: every worker walks through the same grid.
            return GridSampler(grid(self._space), seed=self._settings.tune_seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # group, for conditional spaces
            return TPESampler(
                seed=seed, multivariate=True, group=True, n_startup_trials=_startup(self._settings)
            )


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
    return min(10, max(3, (settings.limit or 30) // 3))


def _has_defaults(trial: FrozenTrial) -> bool:
    """Whether a trial takes the default settings, and was not lost."""
    lost = trial.state == TrialState.FAIL and "record" not in trial.user_attrs
    return not lost and (trial.number == 0 or bool(trial.user_attrs.get(DEFAULT)))
