"""Resolve the settings of a run, with all checks that need no heavy imports and no data."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from toxbench.config import build_settings, get_preset
from toxbench.errors import PluginError, SettingsError, did_you_mean
from toxbench.plugin.baseline import Baseline
from toxbench.plugin.contracts import Backbone, Tracker
from toxbench.plugin.registry import Item, Registered, Registry
from toxbench.ranking.quoted import read_quoted
from toxbench.settings import (
    Adaptation,
    BaselineSettings,
    RunSettings,
    SplitSettings,
    TrainSettings,
    is_folder,
)
from toxbench.training.weights import WeightsChoice
from toxbench.util.table_source import source_paths
from toxbench.util.text import safe_quote

if TYPE_CHECKING:
    from toxbench.executors.torchrun.coordinator import Coordinator

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class ResolvedRun:
    """Checked settings and the plugins that they name; created once, at the start of a run.

    Attributes:
        settings: as given.
        registry: the plugins of this process.
        split: the settings of the split, the preset included.
        weights: which weights to use.
        adaptations: of each backbone, each a candidate.
        backbones: to compare, in the order given.
        baselines: to compare with them.
        baseline_settings: name -> settings of each of these baselines.
        trackers: which log the run.
        unavailable: one line for each backbone or baseline that a broken plugin prevents.
        coordinator: of the processes that torchrun started; None for a single process.
    """

    settings: RunSettings
    registry: Registry
    split: SplitSettings
    weights: WeightsChoice
    adaptations: tuple[Adaptation, ...]
    backbones: tuple[Registered[Backbone], ...]
    baselines: tuple[Registered[Baseline], ...]
    baseline_settings: Mapping[str, BaselineSettings]
    trackers: tuple[Registered[Tracker], ...]
    unavailable: tuple[str, ...] = ()
    coordinator: "Coordinator | None" = None


def resolve(
    settings: RunSettings, registry: Registry, coordinator: "Coordinator | None" = None
) -> ResolvedRun:
    """Check the settings of a run and find the plugins that they name.

    A broken plugin affects only its own backbones and baselines.

    Raises:
        SettingsError: an unknown name, an impossible value, or settings that contradict each
            other.
        PluginError: no backbone is left, or, if none was requested, no baseline.
    """
    split = resolve_split(settings)
    _check_training(settings)
    if settings.quoted is not None:
        read_quoted(settings.quoted)
    _check_executor(settings, is_distributed=coordinator is not None)
    baseline_names = _baseline_names(settings, registry)
    weights = WeightsChoice.parse(settings.weights)
    unavailable: list[str] = []
    requested = _find_all(settings.backbones, registry.requested_backbone, unavailable)
    baselines = tuple(_find_all(baseline_names, registry.baseline, unavailable).values())
    for baseline in (registered.item for registered in baselines):
        _check_installed("--baselines", baseline)
    backbones = {backbone.item.name: backbone for backbone in requested.values()}
    _check_names({*backbones}, baseline_names)
    _check_tables(settings, {*backbones}, baselines, weights)
    of_baselines = {b.item.name: _baseline_settings(b.item, settings) for b in baselines}
    names = {word: backbone.item.name for word, backbone in requested.items()}
    if unavailable and not (backbones if settings.backbones else baselines):
        raise PluginError(unavailable)
    return ResolvedRun(
        settings=settings.model_copy(update={"backbone": _by_name(settings.backbone, names)}),
        registry=registry,
        split=split,
        weights=replace(
            weights,
            folders=_baseline_folders(baselines, of_baselines)
            | _by_name(weights.folders | _folders(names), names),
        ),
        adaptations=_adaptations(settings),
        backbones=tuple(backbones.values()),
        baselines=baselines,
        baseline_settings=of_baselines,
        trackers=_find_trackers(settings, registry),
        unavailable=tuple(unavailable),
        coordinator=coordinator,
    )


def _check_training(settings: RunSettings) -> None:
    """Raise `SettingsError` for an impossible training setting, or one that is of the run."""
    build_settings(TrainSettings, get_preset(settings.preset).train, settings.train)
    for table in settings.backbone.values():
        build_settings(TrainSettings, table)
    if any("adaptation" in table for table in (settings.train, *settings.backbone.values())):
        raise SettingsError(
            "adaptation is a setting of the run, not of its training: --adaptation full,probe, or "
            "adaptation at the top of the config file"
        )


def _baseline_settings(baseline: Baseline, settings: RunSettings) -> BaselineSettings:
    """Combine the defaults of a baseline with ``[baseline.NAME]``.

    Raises:
        SettingsError: an unknown key or an impossible value.
    """
    try:
        return build_settings(baseline.settings, settings.baseline.get(baseline.name, {}))
    except SettingsError as error:
        raise SettingsError(f"[baseline.{baseline.name}] {error}") from error


def _adaptations(settings: RunSettings) -> tuple[Adaptation, ...]:
    if settings.adaptation is not None:
        adaptations = tuple(dict.fromkeys(settings.adaptation))
    else:
        adaptations = ("full", "probe") if settings.baselines is None else ("full",)
    if "lora" in adaptations and find_spec("peft") is None:
        raise SettingsError(
            "--adaptation lora needs the package peft, which is not installed; "
            'first: pip install "toxbench[lora]"'
        )
    return adaptations


def resolve_split(settings: RunSettings) -> SplitSettings:
    """Combine the settings of the split with the preset.

    Raises:
        SettingsError: an impossible value, or settings that contradict each other.
    """
    split = build_settings(SplitSettings, get_preset(settings.preset).split, settings.split)
    _check_split(split, settings)
    return split


def _find_all(
    names: Iterable[str], find: Callable[[str], Registered[Item]], unavailable: list[str]
) -> dict[str, Registered[Item]]:
    """Find each name once; add a line to ``unavailable`` if its plugin is broken."""
    items: dict[str, Registered[Item]] = {}
    for name in dict.fromkeys(names):
        try:
            items[name] = find(name)
        except PluginError as error:
            unavailable.append(f"{name} cannot be run: {error}")
    return items


def _folders(names: Mapping[str, str]) -> dict[str, Path]:
    """Return name -> folder of the words of ``--backbones`` that are folders."""
    return {
        name: Path(word).expanduser().resolve() for word, name in names.items() if is_folder(word)
    }


def _by_name(values: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """Return values by the names of backbones instead of the words of ``--backbones``."""
    return {names.get(word, word): value for word, value in values.items()}


def _baseline_names(settings: RunSettings, registry: Registry) -> tuple[str, ...]:
    """Return the names after ``--baselines``, by default those that need not be named."""
    if settings.baselines is not None:
        return settings.baselines
    return tuple(n for n, baseline in registry.baselines.items() if not baseline.item.on_request)


def _baseline_folders(
    baselines: Iterable[Registered[Baseline]], settings: Mapping[str, BaselineSettings]
) -> dict[str, Path]:
    """Return name -> folder of the baselines whose settings name a folder of weights."""
    words = {
        baseline.name: getattr(settings[baseline.name], baseline.weights_setting)
        for baseline in (registered.item for registered in baselines)
        if baseline.weights_setting
    }
    return {n: Path(word).expanduser().resolve() for n, word in words.items() if is_folder(word)}


def _check_names(backbone_names: set[str], baseline_names: Iterable[str]) -> None:
    ambiguous = sorted(backbone_names & set(baseline_names))
    if ambiguous:
        raise SettingsError(
            f"{', '.join(ambiguous)} is a backbone and a baseline; choose with --baselines"
        )


def _check_tables(
    settings: RunSettings,
    backbone_names: set[str],
    baselines: Iterable[Registered[Baseline]],
    weights: WeightsChoice,
) -> None:
    """Refuse settings and weights of candidates that are not compared."""
    items = [registered.item for registered in baselines]
    backbones = {*settings.backbones, *backbone_names}
    with_weights = {baseline.name for baseline in items if baseline.weights_setting}
    for names, known, options in (
        (settings.backbone, backbones, "--backbones"),
        (settings.baseline, {baseline.name for baseline in items}, "--baselines"),
        (weights.folders, backbones | with_weights, "--backbones, or a baseline with weights"),
    ):
        for name in names:
            if name not in known:
                raise SettingsError(
                    f"settings or weights are given for {safe_quote(name)}, which is not among "
                    f"{options}{did_you_mean(name, known)}"
                )


def _find_trackers(settings: RunSettings, registry: Registry) -> tuple[Registered[Tracker], ...]:
    """Find the trackers, each once, without importing the packages that they need."""
    trackers = tuple(map(registry.tracker, dict.fromkeys(settings.trackers)))
    for tracker in trackers:
        _check_installed("--trackers", tracker.item)
    return trackers


def _check_installed(option: str, item: Tracker | Baseline) -> None:
    """Raise `SettingsError` if a package that a tracker or a baseline needs is not installed."""
    if item.needs and find_spec(item.needs.partition(".")[0]) is None:
        raise SettingsError(
            f"{option} {item.name} needs the package {item.needs}, which is not installed; "
            f"first: {item.install or f'pip install {item.needs}'}"
        )


def _check_executor(settings: RunSettings, is_distributed: bool) -> None:
    if settings.executor == "ray" and find_spec("ray") is None:
        raise SettingsError(
            "--executor ray needs the package ray, which is not installed; "
            'first: pip install "toxbench[ray]"'
        )
    if settings.executor != "ray" and settings.ray_address is not None:
        raise SettingsError("--ray-address needs --executor ray; add it, or leave out the address")
    one_process_only = {
        "--workers": settings.workers,
        "--cell-timeout": settings.cell_timeout,
        "--executor": settings.executor if settings.executor != "local" else None,
        "--cpus-per-cell": settings.cpus_per_cell,
        "--gpus-per-cell": settings.gpus_per_cell,
    }
    for option, value in one_process_only.items():
        if is_distributed and value is not None:
            raise SettingsError(
                f"{option} is for cells in worker processes, but torchrun's processes compute "
                f"each cell together; leave out {option}, or start without torchrun"
            )


def _check_split(split: SplitSettings, settings: RunSettings) -> None:
    """Refuse options that would draw test rows although the split is given."""
    if not (split.test or split.valid or split.split_column is not None):
        return
    option = "--test" if split.test else "--valid" if split.valid else "--split-column"
    others = [path for path in (split.valid, split.test) if path is not None]
    files = [*source_paths(settings.data), *others]
    if settings.data is None:
        raise SettingsError(f"{option} needs --data FILE: the sample has no official split")
    if split.test is None and split.valid is not None:
        raise SettingsError("--valid needs --test FILE: a split is given completely, or drawn")
    if split.test is not None and split.split_column is not None:
        raise SettingsError("--test and --split-column both define the test rows; leave one out")
    if len({path.resolve() for path in files}) < len(files):
        raise SettingsError("--data, --valid and --test must be different files")
    clash = ["--folds"] if split.folds > 1 else []
    clash += ["--test-size"] if "test_size" in settings.split else []
    clash += ["--validation-size"] if split.valid and "validation_size" in settings.split else []
    clash += ["--split-file"] if split.split_file is not None else []
    if clash:
        raise SettingsError(f"{option} defines the split; leave out {', '.join(clash)}")
