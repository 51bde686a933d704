"""Candidates of a comparison, the weights of baselines, and cells as tasks of an executor."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from toxbench.errors import PluginError, SettingsError
from toxbench.executors.base import TaskSpec
from toxbench.plugin.baseline import Baseline, BaselineContext
from toxbench.plugin.contracts import Backbone
from toxbench.plugin.registry import Registered, Registry
from toxbench.records import CellKey, TunedSettings, WeightsRecord
from toxbench.settings import BaselineSettings, TrainSettings, digest
from toxbench.training.device import Device
from toxbench.training.weights import Weights, WeightsFinder
from toxbench.util.atomic import cache_folder


@dataclass(frozen=True, kw_only=True)
class BackboneCandidate:
    """A backbone with its initial weights and training settings.

    Attributes:
        distribution: name and version of the plugin's distribution; for one other than toxbench
            also a hash of the plugin's files.
        plugin: name of a plugin of another distribution that must be loaded; None for toxbench's
            plugins.
        tuned: the settings that a search found for each fold, ``[fold]``; empty for others. The
            settings are those of the first fold.
    """

    backbone: Backbone
    distribution: str
    plugin: str | None = None
    weights: Weights
    settings: TrainSettings
    tuned: tuple[TunedSettings, ...] = ()

    @property
    def name(self) -> str:
        """The backbone's name."""
        return self.backbone.name

    @property
    def title(self) -> str:
        """The name, with "(tuned)" if a search found the settings, and the adaptation."""
        tuned = " (tuned)" if self.tuned else ""
        adaptation = self.settings.adaptation
        return f"{self.name}{tuned}{f' [{adaptation}]' if adaptation != 'full' else ''}"

    @property
    def has_epochs(self) -> bool:
        """Whether weights learn by gradient descent."""
        return self.settings.adaptation != "probe"

    @property
    def is_deterministic(self) -> bool:
        """Whether every seed gives the same result."""
        return not self.has_epochs

    @property
    def kind(self) -> Literal["backbone", "baseline"]:
        """A linear probe is a baseline."""
        return "backbone" if self.has_epochs else "baseline"

    @property
    def identity(self) -> list[object]:
        """Weights, settings, tuned thresholds and code, as far as others than toxbench wrote it.

        A new version of toxbench trains nothing again; the leaderboard notes it.
        """
        code = [] if self.plugin is None else [self.distribution]
        settings = [
            part
            for tuned in self.tuned
            for part in (tuned.train.model_dump(mode="json"), tuned.thresholds)
        ] or [self.settings.model_dump(mode="json")]
        return [self.weights.record.identity, *settings, *code]

    def with_tuned(self, tuned: tuple[TunedSettings, ...]) -> "BackboneCandidate":
        """Return the candidate with the settings that searches found, ``[fold]``."""
        return replace(self, settings=tuned[0].train, tuned=tuned)

    def on_fold(self, fold: int) -> "BackboneCandidate":
        """Return the candidate with its settings for one fold."""
        return replace(self, settings=self.tuned[fold].train) if self.tuned else self

    def key(self, fold: int, seed: int) -> CellKey:
        """Return the key of a cell, which depends on the identity."""
        return CellKey(candidate=self.name, digest=digest(self.identity), fold=fold, seed=seed)


@dataclass(frozen=True, kw_only=True)
class BaselineCandidate:
    """A baseline with its settings and pretrained weights.

    Attributes:
        weights: None if the baseline has none.
    """

    baseline: Baseline
    distribution: str
    plugin: str | None = None
    settings: BaselineSettings = field(default_factory=BaselineSettings)
    weights: Weights | None = None

    @property
    def name(self) -> str:
        """The baseline's name."""
        return self.baseline.name

    @property
    def title(self) -> str:
        """The name."""
        return self.name

    @property
    def is_deterministic(self) -> bool:
        """Whether every seed gives the same result."""
        return not self.baseline.stochastic

    @property
    def kind(self) -> Literal["backbone", "baseline"]:
        """Of the candidate's cells."""
        return "baseline"

    @property
    def recorded_settings(self) -> dict[str, Any]:
        """The settings without the one that names the weights, which may be a local path."""
        return self.settings.model_dump(mode="json", exclude={self.baseline.weights_setting})

    def context(
        self, labels: tuple[str, ...], seed: int, labelled: npt.NDArray[np.bool_]
    ) -> BaselineContext:
        """Return the context of a cell."""
        return BaselineContext(
            labels=labels,
            labelled=labelled,
            seed=seed,
            settings=self.settings,
            weights=self.weights.folder if self.weights else None,
            cache=cache_folder() / "baselines" / self.name,
        )

    def on_fold(self, fold: int) -> "BaselineCandidate":
        """Return the candidate, which is the same on every fold."""
        return self

    def key(self, fold: int, seed: int) -> CellKey:
        """Return the key of a cell: of settings, weights and the version of the distribution."""
        weights = self.weights.record.identity if self.weights else None
        identity = [self.distribution, self.recorded_settings, weights]
        return CellKey(candidate=self.name, digest=digest(identity), fold=fold, seed=seed)


Candidate = BackboneCandidate | BaselineCandidate


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone's candidate as plain values, without the plugin's objects."""

    name: str
    distribution: str
    weights: WeightsRecord
    settings: TrainSettings
    tuned: tuple[TunedSettings, ...]

    @classmethod
    def of(cls, candidate: BackboneCandidate) -> "BackboneSpec":
        """Describe a candidate so that it can be sent to another process."""
        return cls(
            name=candidate.name,
            distribution=candidate.distribution,
            weights=candidate.weights.record,
            settings=candidate.settings,
            tuned=candidate.tuned,
        )

    def load(self, registry: Registry, folder: Path | None) -> BackboneCandidate:
        """Build the candidate again from the plugins of this process and its weights' folder.

        Raises:
            PluginError: the backbone is not among these plugins, is another version of it, or has
                no stand-in.
        """
        registered = registry.stored_backbone(self.name, self.distribution)
        _check_build(registered, self.distribution)
        backbone, head = registered.item, None
        if self.weights.source == "stand-in":
            if backbone.stand_in is None:
                raise PluginError(f"{self.name} has no stand-in in the worker's process")
            head = backbone.stand_in.head
        return BackboneCandidate(
            backbone=backbone,
            distribution=self.distribution,
            weights=Weights(self.weights, folder, {}, head=head),
            settings=self.settings,
            tuned=self.tuned,
        )


@dataclass(frozen=True)
class BaselineSpec:
    """A baseline's candidate as plain values, without the plugin's objects."""

    name: str
    distribution: str
    settings: dict[str, Any]
    weights: WeightsRecord | None

    @classmethod
    def of(cls, candidate: BaselineCandidate) -> "BaselineSpec":
        """Describe a candidate so that it can be sent to another process."""
        return cls(
            name=candidate.name,
            distribution=candidate.distribution,
            settings=candidate.settings.model_dump(),
            weights=candidate.weights.record if candidate.weights else None,
        )

    def load(self, registry: Registry, folder: Path | None) -> BaselineCandidate:
        """Build the candidate again from the plugins of this process and its weights' folder.

        Raises:
            PluginError: the baseline is not among these plugins, or is another version of it.
        """
        registered = registry.baseline(self.name)
        _check_build(registered, self.distribution)
        return BaselineCandidate(
            baseline=registered.item,
            distribution=self.distribution,
            settings=registered.item.settings(**self.settings),
            weights=Weights(self.weights, folder, {}) if self.weights else None,
        )


@dataclass(frozen=True)
class CellTask:
    """One cell to compute on a device."""

    candidate: Candidate
    key: CellKey
    device: Device

    @property
    def spec(self) -> "CellSpec":
        """The cell as plain values."""
        candidate = self.candidate
        if isinstance(candidate, BaselineCandidate):
            return CellSpec(
                plugin=candidate.plugin,
                key=self.key,
                device=self.device,
                reads=candidate.weights.folder if candidate.weights else None,
                candidate=BaselineSpec.of(candidate),
            )
        return CellSpec(
            plugin=candidate.plugin,
            key=self.key,
            device=self.device,
            reads=candidate.weights.folder,
            uses_gpu=self.device.kind == "cuda",
            has_checkpoints=True,
            is_shared=True,
            batch_size=candidate.settings.batch_size,
            candidate=BackboneSpec.of(candidate),
        )


@dataclass(frozen=True, kw_only=True)
class CellSpec(TaskSpec):
    """A cell as plain values."""

    key: CellKey
    device: Device
    candidate: BackboneSpec | BaselineSpec

    def task(self, registry: Registry) -> CellTask:
        """Build the cell again from the plugins of this process; see `TaskSpec`."""
        return CellTask(self.candidate.load(registry, self.reads), self.key, self.device)


def _check_build(registered: Registered[Any], expected: str) -> None:
    """Raise `PluginError` if this process has another version of a plugin than the plan."""
    if registered.build != expected:
        raise PluginError(
            f"the worker's process has {registered.build}, and the run was planned with "
            f"{expected}; start the same command again, and install one version on every machine"
        )


def baseline_candidate(
    registered: Registered[Baseline],
    settings: BaselineSettings,
    registry: Registry,
    finder: WeightsFinder,
) -> BaselineCandidate:
    """Find the weights of a baseline.

    Raises:
        SettingsError, PluginError, StorageError, TryAgainError: there are no weights.
    """
    return BaselineCandidate(
        baseline=registered.item,
        distribution=registered.build,
        plugin=registered.third_party_plugin,
        settings=settings,
        weights=_find_weights(registered.item, settings, registry, finder),
    )


def _find_weights(
    baseline: Baseline, settings: BaselineSettings, registry: Registry, finder: WeightsFinder
) -> Weights | None:
    """Return the weights that a setting of the baseline or ``--weights`` names."""
    setting = baseline.weights_setting
    if not setting:
        return None
    where, word = f"[baseline.{baseline.name}] {setting}", getattr(settings, setting)
    if not word and baseline.name not in finder.choice.folders:
        raise SettingsError(
            f"baseline {baseline.name} has no weights of its own; set {where} in the config file "
            f"to an id of the Hub or a folder, or --weights {baseline.name}=PATH"
        )
    try:
        source = registry.requested_backbone(word or baseline.name).item
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error
    return finder.find(replace(source, name=baseline.name))
