"""The specification of a search, and the sampler and pruner of its trials, built on Optuna's."""

import hashlib
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.data.protocol import Protocol, Split
from toxbench.data.splits import draw_folds
from toxbench.errors import DataError
from toxbench.plugin.contracts import Dimension, Value
from toxbench.settings import INNER_FOLDS, SplitSettings, TrainSettings, TuneSettings, digest
from toxbench.training.device import Device
from toxbench.tuning.space import default_values, make_grid, suggest_settings

PRUNING_STEPS = 4
UNLIMITED = 10**6  # trial limit of a search that only its budget ends


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


@dataclass(frozen=True)
class SearchSpec:
    """The specification of a search for one backbone.

    Attributes:
        candidate: the backbone with its default settings, which are trial 0.
        device: where trials are trained.
        space: checked dimensions.
        data: rows without the test rows, and their inner folds.
        settings: sampler, pruner, budget and other settings of the search.
        studies_folder: folder of all studies of the protocol.
        fingerprint: of the protocol.
        fold: of the protocol, whose test rows are not used.
    """

    candidate: BackboneCandidate
    device: Device
    space: Mapping[str, Dimension]
    data: Protocol
    settings: TuneSettings
    studies_folder: Path
    fingerprint: str
    fold: int = 0

    @property
    def title(self) -> str:
        """Name of the backbone, and the fold if it is not the first one."""
        return f"{self.candidate.name}{f' fold {self.fold}' if self.fold else ''}"

    @property
    def name(self) -> str:
        """Name of the study: the backbone and a digest of everything its scores depend on."""
        key = digest(
            [
                self.data.fingerprint,
                self.candidate.identity,
                sorted((name, repr(dimension)) for name, dimension in self.space.items()),
                ",".join((self.settings.metric, *self.settings.costs)),
                self.settings.inner_folds,
                self.settings.tune_seed,
            ]
        )
        return f"{self.candidate.name}-{key}"

    @property
    def folder(self) -> Path:
        """Folder of the study's records and results."""
        return self.studies_folder / self.name

    @property
    def trial_limit(self) -> int:
        """Number of finished trials to reach, at most those of a grid and the default settings."""
        trials = self.settings.trial_limit or UNLIMITED
        points = grid_points(self.settings, self.space, self.candidate.settings)
        return min(trials, len(points) + 1) if points else trials


def make_inner_data(protocol: Protocol, split: SplitSettings, seed: int, fold: int = 0) -> Protocol:
    """Copy the rows that are not test rows and split them into `INNER_FOLDS` folds.

    One fold of the protocol is used. Each part of its rows is the ``validation`` of one inner
    fold; the other parts are its ``train``, and its ``test`` is empty. Rows are counted in the new
    table. The split strategy is the protocol's, so groups that stay together there stay together
    here.

    Raises:
        DataError: too few rows, or a fold without a positive validation entry.
    """
    outer_fold = protocol.folds[fold]
    rows = np.sort(np.concatenate([outer_fold.train, outer_fold.validation]))
    comments = protocol.comments.take(rows)
    if len(rows) < 2 * INNER_FOLDS:
        raise DataError(
            f"{len(rows)} rows that are not test rows are too few to tune on; "
            f"at least {2 * INNER_FOLDS} are needed: bring more rows, or change --test-size"
        )
    inner_split = SplitSettings(
        split=split.split, folds=INNER_FOLDS, validation_size=0.0, split_seed=seed
    )
    folds = tuple(
        Split(fold.train, fold.test, fold.validation) for fold in draw_folds(comments, inner_split)
    )
    if not all(comments.targets[fold.validation].any() for fold in folds):
        raise DataError(
            "too few positive rows to tune on: an inner fold has no positive validation row; "
            "add positive rows"
        )
    return Protocol(comments, folds)
