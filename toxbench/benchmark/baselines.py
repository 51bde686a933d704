"""The pretrained weights of baselines."""

from dataclasses import replace

from toxbench.benchmark.candidates import BaselineCandidate
from toxbench.errors import SettingsError
from toxbench.plugin.baseline import Baseline
from toxbench.plugin.registry import Registered, Registry
from toxbench.settings import BaselineSettings
from toxbench.training.weights import Weights, WeightsFinder


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
