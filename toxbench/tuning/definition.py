"""What is searched, and where it is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.plugin.contracts import Dimension
from toxbench.settings import TuneSettings, digest
from toxbench.training.device import Device
from toxbench.tuning.inner import InnerData
from toxbench.tuning.sampling import grid_points

UNLIMITED = 10**6


@dataclass(frozen=True)
class Definition:
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
                self.candidate.settings.identity,
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
        trials = self.settings.limit or UNLIMITED
        points = grid_points(self.settings, self.space, self.candidate.settings)
        return min(trials, len(points) + 1) if points else trials
