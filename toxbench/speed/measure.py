"""Backbones and peers timed in turn, so that a machine that slows down slows all of them."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from toxbench.benchmark.candidate import BackboneCandidate
from toxbench.benchmark.cell import environment
from toxbench.benchmark.check import split_settings
from toxbench.benchmark.plan import backbone_candidate
from toxbench.data.source import open_source
from toxbench.data.split import Split
from toxbench.errors import SettingsError
from toxbench.plugin.registry import Registry
from toxbench.records import RememberedSpeed, SpeedRecord, Spread
from toxbench.settings import RunSettings
from toxbench.speed.own import OwnLoop
from toxbench.speed.request import Shape, SpeedRequest
from toxbench.speed.shapes import random_checkpoint
from toxbench.speed.startup import startup_seconds
from toxbench.speed.task import Task, Timed, Variant
from toxbench.training.device import Device, choose_device
from toxbench.training.peak import matrix_peak
from toxbench.training.weights import WeightsChoice, WeightsFinder

OPERATIONS = 6  # of a parameter and a token in training (Kaplan et al. 2020, arXiv:2001.08361)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class _Run:
    """One timed run of a variant, as seconds of a whole epoch."""

    epoch: float
    timed: Timed


@dataclass(frozen=True)
class _Chosen:
    """A candidate, and the settings that find its weights again in another process."""

    candidate: BackboneCandidate
    settings: RunSettings


def measure(
    settings: RunSettings, request: SpeedRequest, registry: Registry, tell: Tell
) -> Iterator[SpeedRecord]:
    """Measure backbone by backbone; nothing is stored.

    Args:
        settings: what is trained, on which table, from which weights, where.
        request: beside whom, and how often.
        registry: where backbones come from.
        tell: called with one line about what goes on.

    Yields:
        a backbone's record, then its peers'.

    Raises:
        SettingsError, DataError, PluginError, StorageError, TryAgainError: as a run would.
        CellsFailedError: a training diverged.
    """
    if not settings.backbones:
        raise SettingsError("no backbone to measure; name some: --backbones bert,distilbert")
    source = open_source(settings.data, settings.columns, split_settings(settings))
    finder = WeightsFinder(WeightsChoice.parse(settings.weights))
    for name in dict.fromkeys(settings.backbones):
        with _chosen(name, settings, registry, finder, request.shape) as chosen:
            candidate = chosen.candidate
            if candidate.weights.warning is not None:
                tell(f"toxbench: warning: {candidate.weights.warning}")
            device = choose_device(settings.device, candidate.settings.precision)
            task = Task(candidate, source.comments, _train_rows(source.folds[0]), device)
            yield from _measured(task, chosen.settings, request, tell)


def remembered(records: Sequence[SpeedRecord]) -> tuple[RememberedSpeed, ...]:
    """Return what later estimates need of toxbench's own records."""
    return tuple(
        RememberedSpeed(
            device_name=record.device_name,
            precision=record.precision,
            threads=record.threads,
            version=record.versions["toxbench"],
            measured=record.measured,
            body_parameters=record.body_parameters,
            batch_size=record.batch_size,
            comments_per_second=record.comments_per_second.median,
            share_of_peak=record.share_of_peak.median,
        )
        for record in records
        if record.times_slower is None
    )


@contextmanager
def _chosen(
    name: str,
    settings: RunSettings,
    registry: Registry,
    finder: WeightsFinder,
    shape: Shape | None,
) -> Iterator[_Chosen]:
    """Yield a candidate from its weights, or from random ones that are gone afterwards."""
    candidate = backbone_candidate(registry.backbone(name), settings, finder)
    folder, source = candidate.weights.folder, candidate.weights.record.source
    if shape is None or folder is None:
        words = f"{name}={folder}" if source == "local" else source
        yield _Chosen(candidate, _only(settings, name, words))
        return
    with random_checkpoint(folder, shape) as made:
        own = _only(settings, name, f"{name}={made}")
        found = WeightsFinder(WeightsChoice(folders={name: made}))
        candidate = backbone_candidate(registry.backbone(name), own, found)
        record = candidate.weights.record.model_copy(update={"label": f"random weights: {shape}"})
        weights = replace(candidate.weights, record=record)
        yield _Chosen(replace(candidate, weights=weights), own)


def _only(settings: RunSettings, name: str, weights: str) -> RunSettings:
    return settings.model_copy(update={"backbones": (name,), "weights": (weights,)})


def _train_rows(split: Split) -> Split:
    """Leave validation rows out: they are scored after each epoch, which is no training."""
    return replace(split, validation=split.validation[:0])


def _measured(
    task: Task, settings: RunSettings, request: SpeedRequest, tell: Tell
) -> Iterator[SpeedRecord]:
    variants = _variants(task, request.peers)
    before = _peaks(variants)
    starts = []
    for number in range(1, request.repeats + 1):
        tell(f"[{task.candidate.name}] start-up {number} of {request.repeats}")
        starts.append(startup_seconds(settings, task.candidate.name))
    runs = _rounds(task, variants, request.repeats, tell)
    peaks = {device: max(peak, before[device]) for device, peak in _peaks(variants).items()}
    own = [run.epoch for run in runs["toxbench"]]
    for variant in variants:
        record = _record(task, variant, runs[variant.name], peaks[variant.device], request)
        if variant.name == "toxbench":
            yield record.model_copy(update=_own_fields(task, starts, runs["toxbench"]))
        else:
            ratios = [run.epoch / ours for run, ours in zip(runs[variant.name], own, strict=True)]
            yield record.model_copy(update={"times_slower": Spread.of(ratios)})


def _variants(task: Task, peers: Sequence[str]) -> list[Variant]:
    """Return toxbench's loop and the peers, which cost an import of seconds."""
    variants: list[Variant] = [OwnLoop(task)]
    if peers:
        from toxbench.speed.peers import peer

        variants += [peer(name, task) for name in peers]
    return variants


def _peaks(variants: Sequence[Variant]) -> dict[Device, float]:
    devices = dict.fromkeys(variant.device for variant in variants)
    return {device: matrix_peak(device) for device in devices}


def _rounds(
    task: Task, variants: Sequence[Variant], repeats: int, tell: Tell
) -> dict[str, list[_Run]]:
    """Warm every variant up, then run all of them in turn, again and again."""
    name = task.candidate.name
    for variant in variants:
        tell(f"[{name}] {variant.name}: warm-up")
        variant.warm_up()
    runs: dict[str, list[_Run]] = {variant.name: [] for variant in variants}
    for number in range(1, repeats + 1):
        for variant in variants:
            gc.collect()  # the module before, whose memory would count
            timed = variant.run()
            epoch = timed.seconds / variant.comments * len(task.rows)
            runs[variant.name].append(_Run(epoch, timed))
            tell(f"[{name}] {variant.name}, run {number} of {repeats}: {epoch:.2f} s an epoch")
    return runs


def _record(
    task: Task, variant: Variant, runs: Sequence[_Run], peak: float, request: SpeedRequest
) -> SpeedRecord:
    around = environment(variant.device)
    epochs = [run.epoch for run in runs]
    tokens = task.tokens_an_epoch
    rates = [tokens / epoch for epoch in epochs]
    weights = task.candidate.weights.record
    return SpeedRecord(
        backbone=task.candidate.name,
        by=variant.name,
        weights=weights.label,
        source="random" if request.shape else weights.source,
        body_parameters=task.body_parameters,
        device=around.device,
        device_name=around.device_name,
        precision=around.precision,
        threads=around.threads,
        versions=around.versions,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        data=task.comments.name,
        batch_size=1 if variant.name == "notebook" else task.settings.batch_size,
        max_length=task.settings.max_length,
        epochs=task.settings.epochs,
        repeats=len(runs),
        rows=len(task.rows),
        tokens=tokens,
        comments_timed=variant.comments,
        seconds_an_epoch=Spread.of(epochs),
        comments_per_second=Spread.of([len(task.rows) / epoch for epoch in epochs]),
        tokens_per_second=Spread.of(rates),
        peak_operations_per_second=peak,
        share_of_peak=Spread.of(
            [OPERATIONS * task.body_parameters * rate / peak for rate in rates]
        ),
        peak_memory_bytes=max(run.timed.peak_memory_bytes for run in runs),
        times_slower=None,
        startup_seconds=None,
        evaluation_comments_per_second=None,
    )


def _own_fields(
    task: Task, starts: Sequence[Mapping[str, float]], runs: Sequence[_Run]
) -> dict[str, object]:
    """Return what is measured of toxbench alone."""
    evaluated = [run.timed.evaluation_seconds for run in runs]
    rates = [len(task.comments) / seconds for seconds in evaluated if seconds is not None]
    return {
        "startup_seconds": {
            stage: Spread.of([start[stage] for start in starts]) for stage in starts[0]
        },
        "evaluation_comments_per_second": Spread.of(rates),
    }
