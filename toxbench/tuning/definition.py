"""What is searched, and where it is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.data.protocol import Protocol, Split
from toxbench.data.splits import draw_folds
from toxbench.data.table import TextDataset
from toxbench.errors import DataError
from toxbench.plugin.contracts import Dimension
from toxbench.settings import INNER_FOLDS, SplitSettings, TuneSettings, digest
from toxbench.training.device import Device
from toxbench.tuning.sampler import grid_points


@dataclass(frozen=True, eq=False)
class InnerData:
    """A table that test rows were never part of, and its folds."""

    comments: TextDataset
    folds: tuple[Split, ...]

    @property
    def fingerprint(self) -> str:
        """Sha256 of these rows and folds: test rows, and their labels, do not change it."""
        return Protocol(self.comments, self.folds).fingerprint


def inner_data(protocol: Protocol, split: SplitSettings, seed: int) -> InnerData:
    """Copy the rows that are not test rows, and cut them into `INNER_FOLDS` folds.

    Each fold's ``validation`` is one of the parts, its ``train`` the others, its ``test`` empty;
    rows are counted in the new table. They are drawn as the protocol's own folds are: what must
    not be torn apart there is not torn apart here.

    Raises:
        DataError: too few rows, or a fold without a positive validation entry.
    """
    outer = protocol.folds[0]
    rows = np.sort(np.concatenate([outer.train, outer.validation]))
    comments = protocol.comments.take(rows)
    if len(rows) < 2 * INNER_FOLDS:
        raise DataError(
            f"{len(rows)} rows beside the test rows are too few to tune on; bring more rows"
        )
    inner = SplitSettings(
        split=split.split, folds=INNER_FOLDS, validation_size=0.0, split_seed=seed
    )
    drawn = draw_folds(comments, inner)
    folds = tuple(Split(fold.train, fold.test, fold.validation) for fold in drawn)
    if not all(comments.targets[fold.validation].any() for fold in folds):
        raise DataError("too few positive rows to tune on: an inner fold has none to validate with")
    return InnerData(comments, folds)


UNLIMITED = 10**6


@dataclass(frozen=True)
class SearchSpec:
    """One search.

    Attributes:
        candidate: the backbone with its default settings, which are trial 0.
        space: checked dimensions.
        data: rows without the test rows.
        settings: how to search.
        tuning: folder of all studies of the protocol.
        fingerprint: of the protocol.
    """

    candidate: BackboneCandidate
    device: Device
    space: Mapping[str, Dimension]
    data: InnerData
    settings: TuneSettings
    tuning: Path
    fingerprint: str

    @property
    def name(self) -> str:
        """Name of the study: the backbone, and a digest of all that its scores depend on."""
        chosen = digest(
            [
                self.data.fingerprint,
                self.candidate.weights.record.identity,
                self.candidate.settings.model_dump(mode="json"),
                sorted((name, repr(dimension)) for name, dimension in self.space.items()),
                self.settings.inner_folds,
                self.settings.tune_seed,
            ]
        )
        return f"{self.candidate.name}-{chosen}"

    @property
    def folder(self) -> Path:
        """Where the study's records and results are."""
        return self.tuning / self.name

    @property
    def wanted(self) -> int:
        """Finished trials to reach; a grid may have fewer points, and the default settings."""
        trials = self.settings.trial_limit or UNLIMITED
        points = grid_points(self.settings, self.space, self.candidate.settings)
        return min(trials, len(points) + 1) if points else trials
