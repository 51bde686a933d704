"""The specification of a search, and the rows and inner folds that its trials use."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.data.protocol import Protocol, Split
from toxbench.data.splits import draw_folds
from toxbench.errors import DataError
from toxbench.plugin.contracts import Dimension
from toxbench.settings import INNER_FOLDS, SplitSettings, TuneSettings, digest
from toxbench.training.device import Device
from toxbench.tuning.sampler import grid_points

UNLIMITED = 10**6  # trial limit of a search that only its budget ends


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
