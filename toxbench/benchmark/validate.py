"""What can be refused at once, before anything heavy is imported or read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from toxbench.config import build_settings, get_preset
from toxbench.errors import PluginError, SettingsError, did_you_mean
from toxbench.plugin.contracts import Backbone, Baseline, Tracker
from toxbench.plugin.registry import Item, Registered, Registry
from toxbench.settings import RunSettings, SplitSettings, TrainSettings
from toxbench.training.weights import WeightsChoice


@dataclass(frozen=True)
class Where:
    """Where cells are computed.

    Attributes:
        executor: ``local`` or ``ray``.
        ray_address: of a cluster; None: Ray is started on this machine.
        cpus_per_cell: threads of a cell; None: the cores are shared.
        gpus_per_cell: what a cell on CUDA gets of a GPU, in (0, 1]; None: all of it.
    """

    executor: str = "local"
    ray_address: str | None = None
    cpus_per_cell: int | None = None
    gpus_per_cell: float | None = None


@dataclass(frozen=True)
class AskedFor:
    """What is to be compared.

    Attributes:
        lost: what a broken plugin keeps from being run, one line each.
    """

    backbones: tuple[Registered[Backbone], ...]
    baselines: tuple[Registered[Baseline], ...]
    lost: tuple[str, ...]


def asked_for(settings: RunSettings, registry: Registry) -> AskedFor:
    """Find what is to be compared. A broken plugin harms its own candidates, not the others.

    Raises:
        SettingsError: nobody offers a name.
        PluginError: of the backbones, or without any the baselines, nothing is left.
    """
    lost: list[str] = []
    backbones = _usable(settings.backbones, registry.backbone, lost)
    baselines = _usable(baseline_names(settings, registry), registry.baseline, lost)
    if lost and not (backbones if settings.backbones else baselines):
        raise PluginError(lost)
    return AskedFor(backbones, baselines, tuple(lost))


def _usable(
    names: Iterable[str], find: Callable[[str], Registered[Item]], lost: list[str]
) -> tuple[Registered[Item], ...]:
    """Find each once; note in ``lost`` why one cannot be had."""
    found: list[Registered[Item]] = []
    for name in dict.fromkeys(names):
        try:
            found.append(find(name))
        except PluginError as error:
            lost.append(f"{name} cannot be run: {error}")
    return tuple(found)


def check_settings(settings: RunSettings, registry: Registry) -> None:
    """Check names and values of a run.

    Raises:
        SettingsError: an unknown name, an impossible value, or settings for nobody.
        PluginError: as `asked_for`.
    """
    split_settings(settings)
    build_settings(TrainSettings, get_preset(settings.preset).train, settings.train)
    for own in settings.backbone.values():
        build_settings(TrainSettings, own)
    asked_for(settings, registry)
    trackers(settings, registry)
    where(settings)
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
                f"{did_you_mean(name, settings.backbones)}"
            )


def trackers(settings: RunSettings, registry: Registry) -> tuple[Registered[Tracker], ...]:
    """Find the trackers that were asked for, each once; nothing of them is imported.

    Raises:
        SettingsError: nobody offers a name, or a package is missing that the tracker needs.
        PluginError: its plugin is broken, or two claim the name.
    """
    found = tuple(map(registry.tracker, dict.fromkeys(settings.trackers)))
    for item in (one.item for one in found):
        if item.needs and find_spec(item.needs.partition(".")[0]) is None:
            raise SettingsError(
                f"--trackers {item.name} needs the package {item.needs}, which is not installed; "
                f"first: {item.install or f'pip install {item.needs}'}"
            )
    return found


def where(settings: RunSettings) -> Where:
    """Say where cells are computed; nothing of Ray is imported.

    Raises:
        SettingsError: Ray is not installed, or an address is given for another executor.
    """
    if settings.executor == "ray" and find_spec("ray") is None:
        raise SettingsError(
            "--executor ray needs the package ray, which is not installed; "
            'first: pip install "toxbench[ray]"'
        )
    if settings.executor != "ray" and settings.ray_address is not None:
        raise SettingsError("--ray-address needs --executor ray; add it, or leave out the address")
    return Where(
        settings.executor, settings.ray_address, settings.cpus_per_cell, settings.gpus_per_cell
    )


def split_settings(settings: RunSettings) -> SplitSettings:
    """Layer the split's settings: preset, then the user's.

    Raises:
        SettingsError: an impossible value, or two that contradict each other.
    """
    split = build_settings(SplitSettings, get_preset(settings.preset).split, settings.split)
    _refuse_contradictions(split, settings)
    return split


def _refuse_contradictions(split: SplitSettings, settings: RunSettings) -> None:
    """An official split is used as it is: whatever would draw test rows says something else."""
    files = [path for path in (settings.data, split.valid, split.test) if path is not None]
    by_column = split.split_column is not None
    given = "--test" if split.test else "--valid" if split.valid else "--split-column"
    if not (split.test or split.valid or by_column):
        return
    if settings.data is None:
        raise SettingsError(f"{given} needs --data FILE: the sample has no official split")
    if split.test is None and split.valid is not None:
        raise SettingsError("--valid needs --test FILE: a split is given as a whole, or drawn")
    if split.test is not None and by_column:
        raise SettingsError("--test and --split-column both say what is tested; leave one out")
    if len({path.resolve() for path in files}) < len(files):
        raise SettingsError("--data, --valid and --test must be different files")
    clash = ["--folds"] if split.folds > 1 else []
    clash += ["--test-size"] if "test_size" in settings.split else []
    clash += ["--validation-size"] if split.valid and "validation_size" in settings.split else []
    clash += ["--split-file"] if split.split_file is not None else []
    if clash:
        raise SettingsError(f"{given} gives the split as it is; leave out {', '.join(clash)}")


def baseline_names(settings: RunSettings, registry: Registry) -> tuple[str, ...]:
    """Return the baselines that were asked for; by default all that are registered."""
    return tuple(registry.baselines) if settings.baselines is None else settings.baselines
