"""One cell, end to end: from rows of the table to a record and probabilities."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toxbench.benchmark.candidates import BackboneCandidate, BaselineCandidate, CellTask
from toxbench.benchmark.resources import environment
from toxbench.benchmark.save_model import write_model
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.data.protocol import Protocol, Split
from toxbench.data.table import TextDataset
from toxbench.data.text_array import take_rows
from toxbench.errors import PluginError, StorageError
from toxbench.evaluation.early_stopping import Patience, epoch_scores
from toxbench.evaluation.metrics import score_cell
from toxbench.evaluation.thresholds import choose_thresholds, fit_calibration
from toxbench.executors.base import RunnerConfig, TaskError
from toxbench.plugin.baseline import Predict
from toxbench.plugin.loading import quiet_transformers
from toxbench.records import PARTS, CellRecord, Cost, EpochRecord
from toxbench.store.files import PartProbabilities
from toxbench.store.models import ModelStore
from toxbench.training.device import PeakMemory, seeded
from toxbench.training.process_group import SINGLE_PROCESS, ProcessGroup
from toxbench.training.state import CheckpointConfig, Checkpoints, FileCheckpoints, TrainingResult
from toxbench.training.trainer import Trainer
from toxbench.util.arrays import UNLABELLED, Rows, hide_unlabelled, known_targets
from toxbench.util.processes import StopSource

OnEpoch = Callable[[EpochRecord], None]
Computed = tuple[CellRecord, PartProbabilities]
_NOT_TRAINED = {"parameters": None, "epochs": (), "truncated_share": None}
_TEXTS_PER_CALL = 50_000  # of a baseline, which may need much more memory than the texts


@dataclass(frozen=True)
class _TrainingOutput:
    trainer: Trainer
    trained: TrainingResult
    probabilities: PartProbabilities
    evaluation_seconds: float


@dataclass(frozen=True, kw_only=True)
class CellRunnerConfig(RunnerConfig):
    """Plain values that a process needs once to compute cells; ``writes`` is for trained models.

    Attributes:
        protocol: the table and its folds.
        checkpoints: where and how often trainings write checkpoints; None if they write none.
    """

    protocol: Protocol
    checkpoints: CheckpointConfig | None = None

    def runner(self, stop: StopSource, group: ProcessGroup | None = None) -> "CellRunner":
        """Build the runner; see `RunnerConfig`."""
        models = None if self.writes is None else ModelStore(self.writes)
        return CellRunner(self.protocol, stop, models, self.checkpoints, group or SINGLE_PROCESS)


@dataclass
class CellRunner:
    """Computes one cell at a time and prepares the data of a candidate once.

    Attributes:
        protocol: the table and its folds.
        stop: signals that a training with checkpoints is to stop.
        models: where each trained model is written, for `publish_model`; None to write none.
        checkpoints: where and how often checkpoints are written; None to write none.
        group: the processes that compute the same cells; rank 0 writes the models.
    """

    protocol: Protocol
    stop: StopSource
    models: ModelStore | None = None
    checkpoints: CheckpointConfig | None = None
    group: ProcessGroup = SINGLE_PROCESS
    _prepared_for: tuple[str, str] = field(default=("", ""), init=False)  # name and digest
    _factory: TrainerFactory | None = field(default=None, init=False)

    def compute(self, task: CellTask, report: OnEpoch) -> Computed | TaskError:
        """Return the result of a cell, or its error.

        Raises:
            StorageError: the disk fails for every cell.
            StopRequested: the training was stopped and wrote its checkpoint.
        """
        try:
            return self.run(task, report)
        except StorageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
            return TaskError.of(error, self.protocol.comments.texts)

    def run(self, task: CellTask, on_epoch: OnEpoch) -> Computed:
        """Train and score one cell.

        Raises:
            PluginError: the candidate breaks its contract.
            CellsFailedError: the training diverged.
            StorageError: its model or its checkpoint cannot be written.
            StopRequested: the training was stopped and wrote its checkpoint.
        """
        memory = PeakMemory(task.device)
        memory.start()
        candidate = task.key.candidate, task.key.digest
        if self._prepared_for != candidate:
            self._prepared_for, self._factory = candidate, None
        split = self.protocol.folds[task.key.fold]
        if isinstance(task.candidate, BackboneCandidate):
            return self._backbone_cell(task, task.candidate, split, memory, on_epoch)
        return self._baseline_cell(task, task.candidate, split, memory)

    def _backbone_cell(
        self,
        task: CellTask,
        candidate: BackboneCandidate,
        split: Split,
        memory: PeakMemory,
        on_epoch: OnEpoch,
    ) -> Computed:
        factory, seed = self._trainer_factory(task, candidate), task.key.seed

        def train_and_predict(trainer: Trainer) -> _TrainingOutput:
            patience = Patience(candidate.settings.patience)
            trained = trainer.train(split, seed, epoch_scores, on_epoch, patience.should_stop)
            started = time.perf_counter()
            probabilities = {part: trainer.predict(split.part(part)) for part in PARTS}
            seconds = time.perf_counter() - started
            return _TrainingOutput(trainer, trained, probabilities, seconds)

        with self._checkpoints(task) as make_checkpoints:
            output, micro_batch = factory.with_trainer(
                candidate.settings, seed, train_and_predict, make_checkpoints
            )
        trained, tokens = output.trained, factory.tokens(candidate.settings)
        comments_trained = sum(e.comments or len(split.train) for e in trained.epochs)
        per_rank_batch = self.group.per_rank_batch(candidate.settings.batch_size)
        cost = Cost(
            train_seconds=trained.train_seconds,
            evaluation_seconds=output.evaluation_seconds,
            comments_per_second=comments_trained / trained.train_seconds or None,
            peak_memory_bytes=memory.read(),
        )
        record = self._record(
            task,
            split,
            output.probabilities,
            cost,
            parameters=output.trainer.parameter_count,
            epochs=trained.epochs,
            truncated_share=tokens.truncated_share,
            cut_token_share=tokens.cut_share,
            micro_batch=micro_batch if micro_batch < per_rank_batch else None,
        )
        if self.models is not None:
            self._write_model(self.models.temporary_path(task.key), task, output, split)
        return record, output.probabilities

    @contextmanager
    def _checkpoints(self, task: CellTask) -> Iterator[Callable[[int], Checkpoints]]:
        """Yield a function from the comments of a forward pass to the checkpoints."""
        if self.checkpoints is None:
            yield lambda micro_batch: Checkpoints()
            return
        config, stem = self.checkpoints, task.key.stem
        around = environment(task.device).model_dump(exclude={"commit"})
        # A checkpoint is resumed only under the very same circumstances.
        identity = {"protocol": self.protocol.fingerprint, "cell": stem, **around}
        with self.stop.watching() as should_stop:
            yield lambda micro_batch: FileCheckpoints(
                config.path(stem),
                config.interval_seconds,
                identity | {"micro_batch": micro_batch, "processes": self.group.size},
                should_stop,
                self.group,
            )

    def _write_model(
        self, target: Path, task: CellTask, output: _TrainingOutput, split: Split
    ) -> None:
        folder = task.spec.reads
        assert folder is not None  # noqa: S101 - the training read it
        exact = output.probabilities["test"]
        if task.device.precision != "fp32":
            exact = output.trainer.predict(split.test, "fp32")
        if self.group.rank == 0:
            write_model(target, output.trainer.finished_module(), folder, exact)

    def _trainer_factory(self, task: CellTask, candidate: BackboneCandidate) -> TrainerFactory:
        if self._factory is None:
            self._factory = TrainerFactory(
                candidate.backbone,
                candidate.weights,
                self.protocol.comments,
                task.device,
                candidate.distribution,
                group=self.group,
            )
        return self._factory

    def _baseline_cell(
        self, task: CellTask, candidate: BaselineCandidate, split: Split, memory: PeakMemory
    ) -> Computed:
        comments, baseline = self.protocol.comments, candidate.baseline
        started = time.perf_counter()
        rows = _sample_rows(split.train, baseline.most_rows)
        texts, codes = list(take_rows(comments.texts, rows)), comments.codes[rows]
        context = candidate.context(comments.labels, task.key.seed, codes != UNLABELLED)
        with quiet_transformers(), seeded(context.seed, task.device):
            predict = baseline.fit(texts, known_targets(codes), context)
            fitted_at = time.perf_counter()
            probabilities = {
                part: _predict_rows(predict, comments, split.part(part)) for part in PARTS
            }
        seconds = fitted_at - started
        cost = Cost(
            train_seconds=seconds,
            evaluation_seconds=time.perf_counter() - fitted_at,
            comments_per_second=len(rows) / seconds if seconds > 1e-3 else None,
            peak_memory_bytes=memory.read(),
        )
        fitted_rows = len(rows) if len(rows) < len(split.train) else None
        record = self._record(
            task,
            split,
            probabilities,
            cost,
            fitted_rows=fitted_rows,
            baseline_settings=candidate.recorded_settings,
        )
        return record, probabilities

    def _record(
        self,
        task: CellTask,
        split: Split,
        probabilities: PartProbabilities,
        cost: Cost,
        **fields: Any,
    ) -> CellRecord:
        """Score the probabilities; ``fields`` of the record depend on the kind of candidate."""
        comments, candidate = self.protocol.comments, task.candidate
        codes = {part: comments.codes[split.part(part)] for part in PARTS}
        validation = known_targets(codes["validation"]), probabilities["validation"]
        backbone = candidate if isinstance(candidate, BackboneCandidate) else None
        tuned = backbone.tuned[task.key.fold] if backbone and backbone.tuned else None
        # Thresholds of a search were chosen on many more validation rows.
        thresholds = tuned.thresholds if tuned else choose_thresholds(*validation)
        return CellRecord(
            key=task.key,
            kind=candidate.kind,
            stochastic=not candidate.is_deterministic,
            distribution=candidate.distribution,
            fingerprint=self.protocol.fingerprint,
            weights=candidate.weights.record if candidate.weights else None,
            settings=backbone.settings if backbone else None,
            tuning=tuned.tuning if tuned else None,
            environment=environment(task.device),
            cost=cost,
            thresholds=thresholds,
            calibration=fit_calibration(*validation),
            **_NOT_TRAINED | fields,
            **score_cell(comments.labels, codes, probabilities, thresholds),
        )


def _sample_rows(rows: Rows, most: int | None) -> Rows:
    """Return all rows, or a reproducible random sample of ``most`` rows in their order."""
    if most is None or len(rows) <= most:
        return rows
    places = np.random.default_rng(0).choice(len(rows), most, replace=False)
    return rows[np.sort(places)]


def _predict_rows(predict: Predict, comments: TextDataset, rows: Rows) -> npt.NDArray[np.float32]:
    """Return a fitted baseline's probabilities, float32 ``[row, label]``, block by block.

    They are 0 where a row is not labelled.
    """
    label_count = len(comments.labels)
    probabilities = np.empty((len(rows), label_count), dtype=np.float32)
    for start in range(0, len(rows), _TEXTS_PER_CALL):
        block = slice(start, start + _TEXTS_PER_CALL)
        texts = list(take_rows(comments.texts, rows[block]))
        probabilities[block] = _checked_predictions(predict, texts, label_count)
    return hide_unlabelled(probabilities, comments.codes[rows])


def _checked_predictions(
    predict: Predict, texts: Sequence[str], label_count: int
) -> npt.NDArray[np.float32]:
    """Call a fitted baseline; raise `PluginError` for a wrong shape or values outside [0, 1]."""
    values = np.asarray(predict(texts))
    if values.shape != (len(texts), label_count):
        raise PluginError(
            f"predict returned shape {list(values.shape)}, expected [{len(texts)}, {label_count}]"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise PluginError("predict returned values that are not probabilities in [0, 1]")
    return values.astype(np.float32)
