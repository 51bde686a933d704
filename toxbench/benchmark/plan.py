"""What a run will do, decided and checked before anything is trained."""

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toxbench.benchmark.candidates import BackboneCandidate, BaselineCandidate, Candidate
from toxbench.benchmark.resume import check_resumable, other_table_warning
from toxbench.benchmark.validate import (
    Where,
    asked_for,
    check_settings,
    split_settings,
    trackers,
    where,
)
from toxbench.config import build_settings, get_preset
from toxbench.data.load import SplitDataset, load_dataset
from toxbench.data.protocol import Protocol, Split
from toxbench.data.readers import safe_name
from toxbench.data.splits import fold_warnings
from toxbench.data.table import TextDataset, left_out
from toxbench.errors import SettingsError
from toxbench.evaluation import metrics, thresholds
from toxbench.plugin.contracts import Backbone, Baseline, Tracker
from toxbench.plugin.registry import Registered, Registry
from toxbench.records import CellKey
from toxbench.settings import SPLIT_FILE_FIELDS, RunSettings, TrainSettings, parse_duration
from toxbench.store.cells import CellStore
from toxbench.store.models import Saved
from toxbench.store.trials import find_tuned
from toxbench.training.device import Device, choose_device
from toxbench.training.state import CheckpointConfig
from toxbench.training.weights import (
    Weights,
    WeightsChoice,
    WeightsFinder,
    checkpoint_config,
)
from toxbench.util.torchrun import NOT_DISTRIBUTED, TorchrunEnv

_GROUPS = ("columns", "train", "split")  # whose fields are options of their own
_PLAIN = ("preset", "seeds", "device", "workers", "cpus_per_cell", "cell_timeout", "tuned")
_LISTS = ("backbones", "baselines", "plugins")
_ELSEWHERE = {"storage", "space"}  # where a study is; and what has a form of its own


def command_of(verb: str, settings: RunSettings, place: TorchrunEnv = NOT_DISTRIBUTED) -> str:
    """Write a command line that asks for the same; what is left at its default is left out.

    Settings of one backbone alone have no option: they follow as the lines of a ``--config`` file.

    Args:
        verb: ``run`` or ``tune``.
        settings: of the run.
        place: of this process among those that run it.
    """
    said = {"backbones": settings.backbones, **settings.model_dump(exclude_defaults=True)}
    words = [*place.command.split(), verb]
    if settings.data is not None:
        words += ["--data", settings.data.name]
    for name in _LISTS:
        if name in said:
            words += [_option(name), ",".join(said[name]) or "none"]
    for source in said.get("weights", ()):
        words += ["--weights", _by_name(source)]
    for group in (*([] if verb == "run" else ["tune"]), *_GROUPS):
        words += _options(said.get(group, {}))
    words += _options({name: said[name] for name in _PLAIN if name in said})
    for name, dimension in settings.tune.get("space", {}).items() if verb == "tune" else ():
        words += ["--space", f"{name}={_range(dimension)}"]
    tables = list(_tables(settings.backbone))
    return shlex.join([*words, *(["--config", "backbones.toml"] if tables else [])]) + (
        "".join(f"\n# backbones.toml: {table}" for table in tables)
    )


def _options(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name in _ELSEWHERE or value is None:
            continue
        yield _option(name)
        if value is not True:
            yield Path(value).name if name in SPLIT_FILE_FIELDS else _word(value)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _by_name(source: str) -> str:
    """Keep of ``NAME=FOLDER`` the last part of the folder."""
    words = (word.partition("=") for word in source.split(","))
    return ",".join(f"{name}={Path(path).name}" if path else name for name, _, path in words)


def _range(dimension: object) -> str:
    return dimension if isinstance(dimension, str) else _word(dimension)


def _tables(backbones: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, values in backbones.items():
        if values:
            yield f"[backbone.{name}] " + ", ".join(f"{k} = {v!r}" for k, v in values.items())


@dataclass(frozen=True)
class Plan:
    """A checked run: which cells there will be and which of them are stored already.

    Attributes:
        source: where the table and its folds come from.
        protocol: the table and its folds.
        synthetic: the table is the built-in sample.
        store: where cells are and go.
        devices: candidate title -> where and in which precision it computes.
        warnings: one line each.
        candidates: backbones in the order asked for, then tuned ones, then baselines.
        cells: every cell, candidate by candidate.
        missing: those that have to be computed.
        lost: what was asked for and a broken plugin keeps from being run, one line each.
        workers: processes that compute cells; None: as many as pay.
        where: cells are computed, and what each of them gets there.
        cell_seconds: what a cell may take; None: any time.
        checkpoint_seconds: of training after which its state is kept.
        save_models: which trained models are kept; None: none.
        has_foreign: plugins of others were loaded into this process.
        environ: of this process before any plugin was loaded.
        command: that asks for the same on another machine.
        trackers: that are told how it goes on.
        seeds: cells of each backbone and fold.
        processes: that compute each training together.
    """

    source: SplitDataset
    protocol: Protocol
    synthetic: bool
    store: CellStore
    devices: dict[str, Device]
    warnings: tuple[str, ...]
    candidates: tuple[Candidate, ...] = ()
    cells: tuple[tuple[Candidate, CellKey], ...] = ()
    missing: tuple[tuple[Candidate, CellKey], ...] = ()
    lost: tuple[str, ...] = ()
    workers: int | None = None
    where: Where = field(default_factory=Where)
    cell_seconds: float | None = None
    checkpoint_seconds: float = 600.0
    save_models: Saved | None = "best"
    has_foreign: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    command: str = ""
    trackers: tuple[Registered[Tracker], ...] = ()
    seeds: int = 1
    processes: int = 1

    @property
    def keeping(self) -> CheckpointConfig:
        """Where the states of trainings are kept, and how often."""
        return CheckpointConfig(self.store.folder / ".checkpoints", self.checkpoint_seconds)

    def of(self, candidates: tuple[Candidate, ...], seeds: int) -> "Plan":
        """Return the plan of these candidates; each backbone has cells of that many seeds."""
        cells = tuple(
            (candidate, candidate.key(fold, seed))
            for candidate in candidates
            for fold in range(len(self.protocol.folds))
            for seed in range(seeds if isinstance(candidate, BackboneCandidate) else 1)
        )
        missing = tuple((c, key) for c, key in cells if not self.store.has(key))
        return replace(self, candidates=candidates, cells=cells, missing=missing, seeds=seeds)

    def prepare(self) -> list[str]:
        """Write down which rows are for what, before anything is trained on them.

        Returns:
            warnings, one line each.

        Raises:
            StorageError: the split file or the results folder cannot be written.
        """
        self.source.write()
        return self.store.prepare(self.protocol, self.synthetic)


def make_plan(
    settings: RunSettings,
    registry: Registry,
    download: bool = True,
    place: TorchrunEnv = NOT_DISTRIBUTED,
) -> Plan:
    """Check settings, read the table, find the weights; train and write nothing.

    Args:
        settings: what the user asked for.
        registry: where candidates come from.
        download: fetch weights that are not here yet; False only asks what there is.
        place: among processes that compute each training together, ``batch_size`` comments each.

    Raises:
        SettingsError, DataError, PluginError, StorageError, TryAgainError: before any work.
    """
    check_settings(settings, registry)
    split = split_settings(settings)
    source = load_dataset(settings.data, settings.columns, split, frozenset(settings.split))
    protocol = make_protocol(source.comments, source.folds)
    finder = WeightsFinder(WeightsChoice.parse(settings.weights), download)
    store = CellStore.for_protocol(settings.results, protocol)
    if settings.resume:
        check_resumable(settings.results, store, protocol)
    asked = asked_for(settings, registry)
    backbones = [
        _of_whole_batches(backbone_candidate(found, settings, finder), place.size)
        for found in asked.backbones
    ]
    _check_looks(backbones, protocol)
    tuned = _tuned(backbones, store, protocol) if settings.tuned else ()
    candidates = (*backbones, *tuned, *map(_baseline, asked.baselines))
    plan = Plan(
        source=source,
        protocol=protocol,
        synthetic=settings.data is None,
        store=store,
        devices={candidate.title: _device(candidate, settings) for candidate in candidates},
        lost=asked.lost,
        warnings=(
            *other_table_warning(settings.results, store, protocol),
            *_data_warnings(protocol),
            *_weight_warnings(candidates),
        ),
        workers=settings.workers,
        where=where(settings),
        cell_seconds=parse_duration(settings.cell_timeout) if settings.cell_timeout else None,
        checkpoint_seconds=parse_duration(settings.checkpoint_every),
        save_models=None if settings.save_models == "none" else settings.save_models,
        has_foreign=registry.has_third_party_plugins,
        environ=registry.environ,
        command=command_of("run", settings, place),
        processes=place.size,
        trackers=trackers(settings, registry),
    )
    return plan.of(candidates, settings.seeds)


def make_protocol(comments: TextDataset, folds: tuple[Split, ...]) -> Protocol:
    """Put a table, its folds and the definitions of every metric and thresholds rule together."""
    definitions = {f"metric {k}": v for k, v in metrics.DEFINITIONS.items()}
    definitions |= {f"threshold {k}": v for k, v in thresholds.DEFINITIONS.items()}
    return Protocol(comments, folds, definitions)


def backbone_candidate(
    registered: Registered[Backbone], settings: RunSettings, finder: WeightsFinder
) -> BackboneCandidate:
    """Find a backbone's weights and layer its settings.

    Raises:
        SettingsError, StorageError, TryAgainError: it cannot be run like that.
    """
    name = registered.item.name
    weights = finder.find(registered.item)
    chosen = build_settings(
        TrainSettings,
        registered.item.defaults.model_dump(exclude_unset=True),
        weights.defaults,
        get_preset(settings.preset).train,
        settings.train,
        settings.backbone.get(name, {}),
    )
    check_length(name, weights, chosen)
    return BackboneCandidate(
        backbone=registered.item,
        distribution=registered.distribution,
        plugin=registered.third_party_plugin,
        weights=weights,
        settings=chosen,
    )


def _baseline(registered: Registered[Baseline]) -> BaselineCandidate:
    return BaselineCandidate(
        baseline=registered.item,
        distribution=registered.distribution,
        plugin=registered.third_party_plugin,
    )


def _of_whole_batches(candidate: BackboneCandidate, processes: int) -> BackboneCandidate:
    """Count the comments of a step in all processes: how they are divided changes no result."""
    settings = candidate.settings
    whole = settings.model_copy(update={"batch_size": settings.batch_size * processes})
    return replace(candidate, settings=whole)


def _tuned(
    candidates: list[BackboneCandidate], store: CellStore, protocol: Protocol
) -> Iterator[BackboneCandidate]:
    """Yield each backbone again, with the settings that were found for it and its weights."""
    for candidate in candidates:
        identity = candidate.weights.record.identity
        tuned = find_tuned(store.folder, protocol.fingerprint, candidate.name, identity)
        if tuned is None:
            raise SettingsError(
                f"no tuned settings of {candidate.name} for this table, split and weights; "
                f"first: toxbench tune --backbones {candidate.name}"
            )
        yield replace(candidate, settings=tuned.train, tuned=tuned)


def check_length(name: str, weights: Weights, settings: TrainSettings) -> None:
    """Refuse comments longer than the checkpoint has positions for, where its config says so."""
    positions = checkpoint_config(weights.folder).get("max_position_embeddings")
    if isinstance(positions, int) and settings.max_length > positions:
        raise SettingsError(
            f"max_length = {settings.max_length} is more than the {positions} positions of {name}"
        )


def _check_looks(candidates: list[BackboneCandidate], protocol: Protocol) -> None:
    """Refuse to look at validation rows where there are none."""
    if all(len(fold.validation) for fold in protocol.folds):
        return
    for name in ("eval_steps", "patience"):
        if any(getattr(candidate.settings, name) for candidate in candidates):
            raise SettingsError(
                f"{name} needs validation rows, and there are none; set --validation-size above 0"
            )


def _device(candidate: Candidate, settings: RunSettings) -> Device:
    if isinstance(candidate, BaselineCandidate):
        return choose_device("cpu", "fp32")
    return choose_device(settings.device, candidate.settings.precision)


def _data_warnings(protocol: Protocol) -> list[str]:
    comments = protocol.comments
    none = [label for label, support in comments.supports.items() if support == 0]
    warnings = [f"no positive row, nothing to learn or score: {', '.join(none)}"] if none else []
    warnings += left_out(comments)
    if comments.ignored:
        warnings.append(f"columns that are not used: {', '.join(map(safe_name, comments.ignored))}")
    warnings += fold_warnings(comments, protocol.folds)
    return warnings


def _weight_warnings(candidates: tuple[Candidate, ...]) -> list[str]:
    found = [c.weights.warning for c in candidates if isinstance(c, BackboneCandidate)]
    return [warning for warning in found if warning is not None]
