"""One cell, end to end: from rows of the table to a record and probabilities."""

import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from toxbench.benchmark.candidates import BackboneCandidate, BaselineCandidate, Candidate, CellTask
from toxbench.benchmark.save_model import write_model
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.data.protocol import Protocol, Split
from toxbench.data.table import TextDataset
from toxbench.data.text_array import take_rows
from toxbench.errors import PluginError, StorageError
from toxbench.evaluation.early_stopping import EpochSelector, Patience, epoch_scores
from toxbench.evaluation.metrics import measure
from toxbench.evaluation.thresholds import choose_thresholds
from toxbench.executors.base import RunnerConfig, TaskError
from toxbench.plugin.contracts import Predict
from toxbench.plugin.registry import Registry
from toxbench.records import PARTS, CellKey, CellRecord, Cost, Environment, EpochRecord, Part
from toxbench.store.manifest import Code, LoadedPlugin
from toxbench.store.models import ModelStore
from toxbench.training.device import Device, PeakMemory
from toxbench.training.process_group import SINGLE_PROCESS, ProcessGroup
from toxbench.training.state import (
    CheckpointConfig,
    Checkpoints,
    FileCheckpoints,
    NoCheckpoints,
    SharedCheckpoints,
    TrainingResult,
)
from toxbench.training.trainer import Trainer
from toxbench.util.arrays import Rows
from toxbench.util.signals import StopSource

OnEpoch = Callable[[EpochRecord], None]
Probabilities = dict[Part, npt.NDArray[np.float32]]
_TEXTS_AT_ONCE = 50_000  # for baselines, which may need much more memory than the texts
_PACKAGES = ("toxbench", "torch", "transformers", "scikit-learn", "numpy", "pandas")


@dataclass(frozen=True)
class _TrainingOutput:
    """What came of a training."""

    trainer: Trainer
    trained: TrainingResult
    probabilities: Probabilities
    evaluation_seconds: float


@dataclass(frozen=True)
class Checkpointing:
    """How a training that is stopped is taken up again.

    Attributes:
        keeping: where its state is.
        interruption: what stops it.
    """

    keeping: CheckpointConfig
    interruption: StopSource


class CellRunner:
    """Runs the cells of one candidate; what they share is prepared once."""

    def __init__(
        self,
        candidate: Candidate,
        protocol: Protocol,
        device: Device,
        models: ModelStore | None = None,
        going_on: "Checkpointing | None" = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """Prepare nothing yet.

        Args:
            candidate: whose cells are run.
            protocol: the table and its folds.
            device: where to compute.
            models: where each trained model is written, for `keep_model`; None: nowhere.
            going_on: how a training that is stopped is taken up again; None: it is not.
            group: the processes that run the same cells; the first of them writes models.
        """
        self._going_on = going_on
        self._group = group
        self._candidate = candidate
        self._models = models
        self._protocol = protocol
        self._device = device
        self._bench: TrainerFactory | None = None

    def run(self, key: CellKey, on_epoch: OnEpoch) -> tuple[CellRecord, Probabilities]:
        """Train and score one cell.

        Raises:
            PluginError: the candidate breaks its contract.
            CellsFailedError: the training diverged.
            StorageError: its model, or the state of its training, cannot be written.
            Stopped: it was asked to, and the state of its training is kept.
        """
        memory = PeakMemory(self._device)
        memory.start()
        split = self._protocol.folds[key.fold]
        if isinstance(self._candidate, BackboneCandidate):
            return self._backbone_cell(self._candidate, key, split, memory, on_epoch)
        return self._baseline_cell(self._candidate, key, split, memory)

    def _backbone_cell(
        self,
        candidate: BackboneCandidate,
        key: CellKey,
        split: Split,
        memory: PeakMemory,
        on_epoch: OnEpoch,
    ) -> tuple[CellRecord, Probabilities]:
        bench = self._workbench(candidate)

        def work(trainer: Trainer) -> _TrainingOutput:
            choice, patience = EpochSelector(), Patience(candidate.settings.patience)
            trained = trainer.train(
                split, key.seed, epoch_scores, choice.keep, on_epoch, patience.should_stop
            )
            started = time.perf_counter()
            probabilities: Probabilities = {p: trainer.predict(split.part(p)) for p in PARTS}
            seconds = time.perf_counter() - started
            return _TrainingOutput(trainer, trained, probabilities, seconds)

        with self._checkpoints(key) as kept:
            done, micro_batch = bench.with_trainer(candidate.settings, key.seed, work, kept)
        comments_trained = sum(e.comments or len(split.train) for e in done.trained.epochs)
        per_rank_batch = self._group.per_rank_batch(candidate.settings.batch_size)
        cost = Cost(
            train_seconds=done.trained.train_seconds,
            evaluation_seconds=done.evaluation_seconds,
            comments_per_second=comments_trained / done.trained.train_seconds,
            peak_memory_bytes=memory.read(),
        )
        record = self._record(key, split, done.probabilities, cost).model_copy(
            update={
                "parameters": done.trainer.parameter_count,
                "epochs": done.trained.epochs,
                "best_epoch": done.trained.best_epoch,
                "truncated": float(bench.tokens(candidate.settings.max_length).cut.mean()),
                "micro_batch": micro_batch if micro_batch < per_rank_batch else None,
            }
        )
        if self._models is not None:
            self._write_model(self._models.making(key), candidate, done, split)
        return record, done.probabilities

    @contextmanager
    def _checkpoints(self, key: CellKey) -> Iterator[Callable[[int], Checkpoints]]:
        """Yield what makes checkpoints, given the comments in a forward pass."""
        if self._going_on is None:
            yield lambda micro_batch: NoCheckpoints()
            return
        keeping = self._going_on.keeping
        around = environment(self._device).model_dump(exclude={"commit"})
        same = {"protocol": self._protocol.fingerprint, "cell": key.stem, **around}
        with self._going_on.interruption.listening() as should_stop:
            yield lambda micro_batch: SharedCheckpoints(
                self._group,
                FileCheckpoints(
                    keeping.path(key.stem),
                    keeping.interval_seconds,
                    same | {"micro_batch": micro_batch, "processes": self._group.size},
                    should_stop,
                ),
            )

    def _write_model(
        self, made: Path, candidate: BackboneCandidate, done: _TrainingOutput, split: Split
    ) -> None:
        folder = candidate.weights.folder
        assert folder is not None  # noqa: S101 - it was trained from
        exact = done.probabilities["test"]
        if self._device.precision != "fp32":
            exact = done.trainer.predict(split.test, "fp32")
        if self._group.rank == 0:
            write_model(made, done.trainer.module, folder, exact)

    def _workbench(self, candidate: BackboneCandidate) -> TrainerFactory:
        if self._bench is None:
            self._bench = TrainerFactory(
                candidate.backbone,
                candidate.weights,
                self._protocol.comments,
                self._device,
                group=self._group,
            )
        return self._bench

    def _baseline_cell(
        self, candidate: BaselineCandidate, key: CellKey, split: Split, memory: PeakMemory
    ) -> tuple[CellRecord, Probabilities]:
        comments, baseline = self._protocol.comments, candidate.baseline
        started = time.perf_counter()
        rows = _sample(split.train, baseline.most_rows)
        fitted = baseline.fit(list(take_rows(comments.texts, rows)), comments.targets[rows])
        fitted_at = time.perf_counter()
        probabilities = {part: _predicted(fitted, comments, split.part(part)) for part in PARTS}
        seconds = fitted_at - started
        cost = Cost(
            train_seconds=seconds,
            evaluation_seconds=time.perf_counter() - fitted_at,
            comments_per_second=len(rows) / seconds if seconds > 1e-3 else None,
            peak_memory_bytes=memory.read(),
        )
        record = self._record(key, split, probabilities, cost)
        if len(rows) < len(split.train):
            record = record.model_copy(update={"fitted_rows": len(rows)})
        return record, probabilities

    def _record(
        self, key: CellKey, split: Split, probabilities: Probabilities, cost: Cost
    ) -> CellRecord:
        """Score the probabilities; what only a training knows is left out."""
        comments, candidate = self._protocol.comments, self._candidate
        targets = {part: comments.targets[split.part(part)] for part in PARTS}
        is_backbone = isinstance(candidate, BackboneCandidate)
        tuned = candidate.tuned if isinstance(candidate, BackboneCandidate) else None
        if tuned is None:
            thresholds = choose_thresholds(targets["validation"], probabilities["validation"])
        else:
            thresholds = tuned.thresholds  # from many more validation rows than these
        return CellRecord(
            key=key,
            kind="backbone" if is_backbone else "baseline",
            distribution=candidate.distribution,
            fingerprint=self._protocol.fingerprint,
            weights=candidate.weights.record if isinstance(candidate, BackboneCandidate) else None,
            parameters=None,
            settings=candidate.settings if isinstance(candidate, BackboneCandidate) else None,
            tuning=tuned.tuning if tuned else None,
            environment=environment(self._device),
            cost=cost,
            epochs=(),
            best_epoch=None,
            truncated=None,
            thresholds=thresholds,
            **measure(comments.labels, targets, probabilities, thresholds),
        )


def environment(device: Device) -> Environment:
    """Describe this machine and this code, without a path or a user's name."""
    return Environment(
        device=device.kind,
        device_name=device.name,
        precision=device.precision,
        threads=torch.get_num_threads(),
        versions=package_versions(),
        commit=_git_commit(),
    )


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that scores may depend on."""
    return {"python": platform.python_version()} | dict(map(_version, _PACKAGES))


def _sample(rows: Rows, most: int | None) -> Rows:
    """Return all rows, or a random sample of so many, the same each time, in their order."""
    if most is None or len(rows) <= most:
        return rows
    places = np.random.default_rng(0).choice(len(rows), most, replace=False)
    return rows[np.sort(places)]


def _predicted(predict: Predict, comments: TextDataset, rows: Rows) -> npt.NDArray[np.float32]:
    """Return what a fitted baseline predicts of some rows, as float32; many are asked in pieces.

    Raises:
        PluginError: as `_predicted_texts`.
    """
    label_count = len(comments.labels)
    values = np.empty((len(rows), label_count), dtype=np.float32)
    for start in range(0, len(rows), _TEXTS_AT_ONCE):
        some = slice(start, start + _TEXTS_AT_ONCE)
        texts = list(take_rows(comments.texts, rows[some]))
        values[some] = _predicted_texts(predict, texts, label_count)
    return values


def _predicted_texts(
    predict: Predict, texts: Sequence[str], label_count: int
) -> npt.NDArray[np.float32]:
    """Ask a fitted baseline and check what it says.

    Raises:
        PluginError: wrong shape, or values outside [0, 1].
    """
    values = np.asarray(predict(texts))
    if values.shape != (len(texts), label_count):
        raise PluginError(
            f"predict returned shape {list(values.shape)}, expected [{len(texts)}, {label_count}]"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise PluginError("predict returned values that are not probabilities in [0, 1]")
    return values.astype(np.float32)


def _version(package: str) -> tuple[str, str]:
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, "not installed"


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def code_of(registry: Registry) -> Code:
    """Describe the plugins that were imported, and the versions of the packages that compute."""
    return Code(
        plugins=tuple(
            LoadedPlugin(name=name, distribution=distribution)
            for name, distribution in sorted(registry.imported.items())
        ),
        versions=package_versions(),
    )


Computed = tuple[CellRecord, Probabilities]


@dataclass(frozen=True, kw_only=True)
class CellRunnerConfig(RunnerConfig):
    """What a process needs once to compute cells; ``writes`` is where trained models go.

    Attributes:
        protocol: the table and its folds.
        keeping: where the states of trainings are kept; None: nowhere.
    """

    protocol: Protocol
    keeping: CheckpointConfig | None = None

    def station(
        self, interruption: StopSource, group: ProcessGroup = SINGLE_PROCESS
    ) -> "CellStation":
        """Make what computes.

        Args:
            interruption: what asks it to leave.
            group: the processes that compute the same cells.
        """
        models = None if self.writes is None else ModelStore(self.writes)
        going_on = None if self.keeping is None else Checkpointing(self.keeping, interruption)
        return CellStation(self.protocol, models, going_on, group)


class CellStation:
    """Computes one cell at a time; what the cells of one candidate share is prepared once."""

    def __init__(
        self,
        protocol: Protocol,
        models: ModelStore | None,
        going_on: Checkpointing | None,
        group: ProcessGroup,
    ) -> None:
        """Prepare nothing yet.

        Args:
            protocol: the table and its folds.
            models: where trained models are written; None: nowhere.
            going_on: how trainings that are stopped are taken up again; None: they are not.
            group: the processes that compute the same cells.
        """
        self._group = group
        self._going_on = going_on
        self._protocol = protocol
        self._models = models
        self._current: tuple[tuple[str, str], CellRunner] | None = None

    def compute(self, task: CellTask, tell: OnEpoch) -> Computed | TaskError:
        """Return the cell's result, or why it has none.

        Raises:
            StorageError: the disk fails every cell alike.
            Stopped: it was asked to, and the state of the training is kept.
        """
        name = task.key.candidate, task.key.digest
        if self._current is None or self._current[0] != name:
            runner = CellRunner(
                task.candidate,
                self._protocol,
                task.device,
                self._models,
                self._going_on,
                self._group,
            )
            self._current = name, runner
        try:
            return self._current[1].run(task.key, tell)
        except StorageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, counted, exit code 5
            return TaskError.of(error)
