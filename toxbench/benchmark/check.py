"""What can be refused at once, before anything heavy is imported or read."""

from toxbench.errors import SettingsError, nearest
from toxbench.plugin.registry import Registry
from toxbench.settings import RunSettings, SplitSettings, TrainSettings, layered, preset
from toxbench.training.weights import WeightsChoice


def check_settings(settings: RunSettings, registry: Registry) -> None:
    """Check names and values of a run.

    Raises:
        SettingsError: an unknown name, an impossible value, or settings for nobody.
        PluginError: a plugin that was asked for is broken or ambiguous.
    """
    split_settings(settings)
    layered(TrainSettings, preset(settings.preset).train, settings.train)
    for own in settings.backbone.values():
        layered(TrainSettings, own)
    for name in settings.backbones:
        registry.backbone(name)
    for name in settings.baselines or ():
        registry.baseline(name)
    both = set(settings.backbones) & set(baseline_names(settings, registry))
    if both:
        raise SettingsError(
            f"{', '.join(sorted(both))} is a backbone and a baseline; choose with --baselines"
        )
    folders = WeightsChoice.parse(settings.weights).folders
    for name in (*settings.backbone, *folders):
        if name not in settings.backbones:
            raise SettingsError(
                f"settings or weights are given for {name!r}, which is not among --backbones"
                f"{nearest(name, settings.backbones)}"
            )


def split_settings(settings: RunSettings) -> SplitSettings:
    """Layer the split's settings: preset, then the user's; raises `SettingsError`."""
    return layered(SplitSettings, preset(settings.preset).split, settings.split)


def baseline_names(settings: RunSettings, registry: Registry) -> tuple[str, ...]:
    """Return the baselines that were asked for; by default all that are registered."""
    return tuple(registry.baselines) if settings.baselines is None else settings.baselines
