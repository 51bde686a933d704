"""The plan of a run: candidates and cells, decided and checked before anything is trained."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from toxbench.benchmark.candidates import (
    BackboneCandidate,
    BaselineCandidate,
    Candidate,
    baseline_candidate,
)
from toxbench.benchmark.resume import check_resumable, other_table_warning
from toxbench.benchmark.validate import ResolvedRun
from toxbench.config import build_settings, command_line, get_preset
from toxbench.data.load import SplitDataset, load_dataset
from toxbench.data.protocol import Protocol
from toxbench.data.splits import fold_warnings, train_subsets
from toxbench.data.table import doubtful_label_notes, ignored_column_notes, left_out_notes
from toxbench.errors import SettingsError
from toxbench.plugin.contracts import Backbone
from toxbench.plugin.registry import Registered
from toxbench.ranking.quoted import store_quoted
from toxbench.records import CellKey
from toxbench.settings import Adaptation, RunSettings, TrainSettings, parse_duration
from toxbench.store.cells import SUBSETS, CellStore
from toxbench.store.models import SavePolicy
from toxbench.store.trials import find_tuned
from toxbench.training.compatibility import inspect
from toxbench.training.device import Device, choose_device
from toxbench.training.parameters import RATE_FACTOR
from toxbench.training.state import CheckpointConfig
from toxbench.training.weights import Weights, WeightsFinder
from toxbench.util.processes import NOT_DISTRIBUTED, TorchrunEnv
from toxbench.util.text import list_items


@dataclass(frozen=True)
class Plan:
    """A checked run: its cells, and which of them are not stored yet.

    Attributes:
        run: settings and plugins.
        source: the table and its folds, with their origin.
        protocol: the table and its folds.
        store: where cells are stored.
        devices: candidate title -> device and precision.
        warnings: one line each.
        command: the command line that repeats this on another machine.
        seeds: number of cells of each backbone and fold.
        candidates: backbones in the order given, then tuned ones, then baselines.
        cells: every cell, candidate by candidate.
        missing: the cells to compute.
    """

    run: ResolvedRun
    source: SplitDataset
    protocol: Protocol
    store: CellStore
    devices: dict[str, Device]
    warnings: tuple[str, ...]
    command: str = ""
    seeds: int = 1
    candidates: tuple[Candidate, ...] = ()
    cells: tuple[tuple[Candidate, CellKey], ...] = ()
    missing: tuple[tuple[Candidate, CellKey], ...] = ()

    @property
    def settings(self) -> RunSettings:
        """The settings of the run."""
        return self.run.settings

    @property
    def is_synthetic(self) -> bool:
        """Whether the table is the built-in sample."""
        return self.settings.data is None

    @property
    def processes(self) -> int:
        """Number of processes that compute each training together."""
        return _torchrun_env(self.run).size

    @property
    def cell_seconds(self) -> float | None:
        """Time limit of a cell; None for no limit."""
        limit = self.settings.cell_timeout
        return None if limit is None else parse_duration(limit)

    @property
    def save_models(self) -> SavePolicy | None:
        """Which trained models are kept; None to keep none."""
        choice = self.settings.save_models
        return None if choice == "none" else choice

    @property
    def checkpoints(self) -> CheckpointConfig:
        """Where and how often trainings write checkpoints."""
        interval = parse_duration(self.settings.checkpoint_every)
        return CheckpointConfig(self.store.folder / ".checkpoints", interval)

    def with_candidates(self, candidates: tuple[Candidate, ...], seeds: int) -> "Plan":
        """Return the plan of these candidates, with ``seeds`` cells of each backbone and fold."""
        cells = tuple(
            (candidate.on_fold(fold), candidate.key(fold, seed))
            for candidate in candidates
            for fold in range(len(self.protocol.folds))
            for seed in range(1 if candidate.is_deterministic else seeds)
        )
        missing = tuple((c, key) for c, key in cells if not self.store.has(key))
        return replace(self, candidates=candidates, cells=cells, missing=missing, seeds=seeds)

    def write_protocol(self) -> list[str]:
        """Store the split, the protocol and the quoted rows before anything is trained.

        Returns:
            warnings, one line each.

        Raises:
            SettingsError: the file of quoted rows is invalid.
            StorageError: the split file or the results folder cannot be written.
        """
        self.source.write()
        warnings = self.store.prepare(self.protocol, self.is_synthetic)
        return [*warnings, *store_quoted(self.store.folder, self.settings.quoted)]


def make_plan(run: ResolvedRun, download: bool = True) -> Plan:
    """Read the table and find the weights; train and write nothing.

    Without ``download``, weights that are not on the disk are only looked up.

    Raises:
        SettingsError, DataError, PluginError, StorageError, TryAgainError: before any training.
    """
    settings, env = run.settings, _torchrun_env(run)
    source = load_dataset(settings.data, settings.columns, run.split, frozenset(settings.split))
    protocol = Protocol(source.comments, source.folds)
    finder, label_count = WeightsFinder(run.weights, download), len(protocol.comments.labels)
    store = CellStore.for_protocol(settings.results, source.comments.name, protocol.fingerprint)
    if settings.resume:
        check_resumable(settings.results, store, protocol)
    backbones = [
        _with_total_batch(_adapted(candidate, adaptation), env.size)
        for backbone in run.backbones
        for candidate in [backbone_candidate(backbone, settings, finder, label_count)]
        for adaptation in _adaptations(backbone.item, run)
    ]
    _check_evaluations(backbones, protocol)
    tuned = _tuned(backbones, store, protocol) if settings.tuned else ()
    baselines = [
        baseline_candidate(b, run.baseline_settings[b.item.name], run.registry, finder)
        for b in run.baselines
    ]
    candidates = (*backbones, *tuned, *baselines)
    plan = Plan(
        run=run,
        source=source,
        protocol=protocol,
        store=store,
        devices={candidate.title: _device(candidate, settings) for candidate in candidates},
        warnings=(
            *other_table_warning(settings.results, store, protocol),
            *_data_warnings(protocol),
            *_weight_warnings(candidates),
        ),
        command=command_line("run", settings, env.command),
    )
    return plan.with_candidates(candidates, settings.seeds)


def curve_plans(plan: Plan) -> list[Plan]:
    """Return the plan of each size of a learning curve; the last one is of all train rows.

    A subset of the train rows makes another protocol, whose results have a folder of their own.
    """
    plan = replace(plan, command=command_line("curve", plan.settings))
    return [*(_subset_plan(plan, size) for size in sorted({*plan.settings.sizes} - {1})), plan]


def _subset_plan(plan: Plan, size: float) -> Plan:
    source, settings = plan.source, plan.settings.model_copy(update={"save_models": "none"})
    folds = train_subsets(source.comments, source.folds, size, source.settings)
    protocol, results = Protocol(source.comments, folds), plan.store.folder / SUBSETS
    store = CellStore.for_protocol(results, source.comments.name, protocol.fingerprint)
    run = replace(plan.run, settings=settings)
    plan = replace(plan, run=run, protocol=protocol, store=store)
    return plan.with_candidates(plan.candidates, plan.seeds)


def _torchrun_env(run: ResolvedRun) -> TorchrunEnv:
    return NOT_DISTRIBUTED if run.coordinator is None else run.coordinator.env


def backbone_candidate(
    registered: Registered[Backbone],
    settings: RunSettings,
    finder: WeightsFinder,
    label_count: int,
) -> BackboneCandidate:
    """Find a backbone's weights, combine its settings, and check that they fit together.

    Raises:
        SettingsError, PluginError, StorageError, TryAgainError: no weights, or weights or settings
            that cannot be used.
    """
    name = registered.item.name
    weights = finder.find(registered.item)
    train = build_settings(
        TrainSettings,
        registered.item.defaults.model_dump(exclude_unset=True),
        weights.defaults,
        get_preset(settings.preset).train,
        settings.train,
        settings.backbone.get(name, {}),
    )
    weights = inspect(registered.item, weights, label_count, train)
    overrides = (get_preset(settings.preset).train, settings.train, settings.backbone.get(name, {}))
    if not any("max_length" in table for table in overrides):
        weights, train = _limit_length(weights, train)
    check_length(name, weights, train)
    return BackboneCandidate(
        backbone=registered.item,
        distribution=registered.build,
        plugin=registered.third_party_plugin,
        weights=weights,
        settings=train,
    )


def _adaptations(backbone: Backbone, run: ResolvedRun) -> tuple[Adaptation, ...]:
    """Return the adaptations of a backbone; only one without pretrained weights to adapt."""
    return ("full",) if backbone.checkpoint is None else run.adaptations


def _adapted(candidate: BackboneCandidate, adaptation: Adaptation) -> BackboneCandidate:
    settings = candidate.settings
    changes: dict[str, object] = {"adaptation": adaptation}
    if adaptation == "lora":
        changes["learning_rate"] = settings.learning_rate * RATE_FACTOR
    return replace(candidate, settings=settings.model_copy(update=changes))


def _with_total_batch(candidate: BackboneCandidate, processes: int) -> BackboneCandidate:
    """Set the batch size to that of all processes: its distribution changes no result."""
    batch_size = candidate.settings.batch_size * processes
    total = candidate.settings.model_copy(update={"batch_size": batch_size})
    return replace(candidate, settings=total)


def _tuned(
    candidates: list[BackboneCandidate], store: CellStore, protocol: Protocol
) -> Iterator[BackboneCandidate]:
    """Yield each backbone with the settings that ``toxbench tune`` stored for its weights."""
    for candidate in (c for c in candidates if c.settings.adaptation == "full"):
        identity = candidate.weights.record.identity
        found = [
            find_tuned(store.folder, protocol.fingerprint, candidate.name, identity, fold)
            for fold in range(len(protocol.folds))
        ]
        tuned = tuple(settings for settings in found if settings is not None)
        if len(tuned) < len(found):
            raise SettingsError(
                f"no tuned settings of {candidate.name} for this table, split and weights; "
                f"first: toxbench tune --backbones {candidate.name}"
            )
        yield candidate.with_tuned(tuned)


def _limit_length(weights: Weights, settings: TrainSettings) -> tuple[Weights, TrainSettings]:
    """Reduce ``max_length`` to the positions of the weights, with a note in the plan."""
    length = weights.positions
    if length is None or length >= settings.max_length:
        return weights, settings
    note = f"max length {length}: the model has no more positions"
    weights = replace(weights, notes=(*weights.notes, note))
    return weights, settings.model_copy(update={"max_length": length})


def check_length(name: str, weights: Weights, settings: TrainSettings) -> None:
    """Raise `SettingsError` if ``max_length`` exceeds the positions of the weights."""
    if weights.positions is not None and settings.max_length > weights.positions:
        raise SettingsError(
            f"max_length = {settings.max_length} is more than the {weights.positions} tokens that "
            f"{name} from {weights.record.label} has positions for; set --max-length "
            f"{weights.positions} or less"
        )


def _check_evaluations(candidates: list[BackboneCandidate], protocol: Protocol) -> None:
    """Raise `SettingsError` for settings that need validation rows if there are none."""
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
    empty = [label for label, support in comments.supports.items() if support == 0]
    warnings = [f"no positive row, nothing to learn or score: {list_items(empty)}"] if empty else []
    warnings += [*left_out_notes(comments), *doubtful_label_notes(comments)]
    warnings += ignored_column_notes(comments)
    warnings += fold_warnings(comments, protocol.folds)
    return warnings


def _weight_warnings(candidates: tuple[Candidate, ...]) -> list[str]:
    warnings = [candidate.weights.warning for candidate in candidates if candidate.weights]
    return [warning for warning in warnings if warning is not None]
