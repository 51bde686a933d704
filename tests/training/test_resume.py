"""Evaluations every few steps, early stopping, and training resumed from a checkpoint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import build_classifier

from toxbench import TrainSettings
from toxbench.data.protocol import Split
from toxbench.data.tokenization import Tokens
from toxbench.evaluation.early_stopping import Patience, epoch_scores
from toxbench.records import EpochRecord
from toxbench.training.device import choose_device, seeded
from toxbench.training.head import Head
from toxbench.training.optimizer import num_evaluations
from toxbench.training.state import FileCheckpoints, TrainingResult
from toxbench.training.trainer import Trainer
from toxbench.util.processes import StopRequested

pytestmark = pytest.mark.slow

ROWS, LABELS = 48, 3
SPLIT = Split(np.arange(32), np.arange(32, 40), np.arange(40, 48))
FAST = {"learning_rate": 3e-3, "head_learning_rate": 3e-2, "batch_size": 8}
EVERY = {"eval_steps": 3, "epochs": 4, "dropout": 0.1}  # 4 steps per epoch: 16 steps, 6 evaluations


class Countdown:
    """Requests a stop at the n-th call."""

    def __init__(self, calls: int) -> None:
        self.remaining = calls

    def __call__(self) -> bool:
        self.remaining -= 1
        return self.remaining == 0


class Training:
    """Trains with a new trainer at each call, as a new process would, from one checkpoint file."""

    def __init__(self, checkpoint: Path, tokens: Tokens, targets: np.ndarray, path: Path) -> None:
        self.checkpoint, self.tokens, self.targets, self.path = checkpoint, tokens, targets, path

    def __call__(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        interval_seconds: float = 600,
        identity: str = "this",
        **changes: Any,
    ) -> tuple[TrainingResult, bytes, list[EpochRecord]]:
        """Return the result, the probabilities of all rows and the reported epochs."""
        settings = TrainSettings(**(FAST | EVERY | changes))
        device = choose_device("cpu", settings.precision)
        checkpoints = FileCheckpoints(self.path, interval_seconds, {"of": identity}, should_stop)
        reported: list[EpochRecord] = []
        with seeded(1, device):
            module = build_classifier(self.checkpoint, LABELS)
            trainer = Trainer(
                module, Head(("classifier",)), self.tokens, self.targets, settings, device,
                checkpoints=checkpoints,
            )  # fmt: skip
            result = trainer.train(
                SPLIT, 1, epoch_scores, reported.append, Patience(settings.patience).should_stop
            )
            return result, trainer.predict(np.arange(ROWS)).tobytes(), reported


@pytest.fixture
def training(
    checkpoint: Path,
    tokens: Tokens,
    targets: np.ndarray,
    tmp_path: Path,
) -> Training:
    return Training(checkpoint, tokens, targets, tmp_path / "states" / "one.checkpoint")


def without_seconds(records: tuple[EpochRecord, ...] | list[EpochRecord]) -> list[dict[str, Any]]:
    return [record.model_dump(exclude={"seconds"}) for record in records]


def test_evaluations_follow_eval_steps(training: Training) -> None:
    result, _, reported = training()
    assert [record.step for record in reported] == [3, 6, 9, 12, 15, 16]
    assert [record.epoch for record in reported] == [1, 2, 3, 4, 5, 6]
    assert sum(record.comments or 0 for record in reported) == 4 * len(SPLIT.train)
    assert all(record.validation for record in reported)
    assert result.epochs == tuple(reported)
    assert num_evaluations(TrainSettings(**(FAST | EVERY)), len(SPLIT.train)) == 6


def test_evaluations_do_not_change_the_training(training: Training) -> None:
    assert training(dropout=0.0)[1] == training(dropout=0.0, eval_steps=0)[1]


def test_patience_stops_a_training_early(training: Training) -> None:
    full, full_probabilities, _ = training(learning_rate=0.3, epochs=8)
    scores = [record.validation["headline"] or 0.0 for record in full.epochs]
    stopped, probabilities, _ = training(learning_rate=0.3, epochs=8, patience=2)
    number = len(stopped.epochs)
    assert without_seconds(stopped.epochs) == without_seconds(full.epochs[:number])
    assert number < len(full.epochs)
    assert max(scores[: number - 2]) >= max(scores[number - 2 : number])
    assert probabilities != full_probabilities


@pytest.mark.parametrize("calls", [1, 3, 4, 5, 8, 13, 16, 19, 22, 23, 24])
def test_stopped_training_resumes_to_the_same_bytes(training: Training, calls: int) -> None:
    """Stops before and in an epoch, between epochs, in an evaluation, and in the prediction."""
    expected, probabilities, _ = training()
    with pytest.raises(StopRequested):
        training(Countdown(calls))
    assert training.path.is_file() == (calls > 1)  # the first call is before the first step
    resumed, resumed_probabilities, reported = training()
    assert without_seconds(resumed.epochs) == without_seconds(expected.epochs)
    assert without_seconds(reported) == without_seconds(expected.epochs)
    assert resumed_probabilities == probabilities


@pytest.mark.parametrize("calls", [8, 24])  # in an epoch, and in the prediction
def test_stopped_adapters_resume_to_the_same_bytes(training: Training, calls: int) -> None:
    _, probabilities, _ = training(adaptation="lora")
    with pytest.raises(StopRequested):
        training(Countdown(calls), adaptation="lora")
    assert training(adaptation="lora")[1] == probabilities


def test_stopped_windows_resume_to_the_same_bytes(training: Training) -> None:
    starts = training.tokens.offsets
    offsets = np.sort(np.concatenate([starts, (starts[:-1] + starts[1:]) // 2]))
    windows = 2 * np.arange(ROWS + 1)
    training.tokens = replace(training.tokens, offsets=offsets, windows=windows)
    _, probabilities, _ = training()
    with pytest.raises(StopRequested):
        training(Countdown(8))
    assert training()[1] == probabilities


def test_training_resumes_after_many_stops(training: Training) -> None:
    expected, probabilities, _ = training(padding="max_length", max_length=12)
    stops = 0
    while True:
        try:
            resumed, resumed_probabilities, _ = training(
                Countdown(4), padding="max_length", max_length=12
            )
            break
        except StopRequested:
            stops += 1
    assert stops > 3
    assert without_seconds(resumed.epochs) == without_seconds(expected.epochs)
    assert resumed_probabilities == probabilities


def test_killed_training_resumes_from_the_checkpoint(training: Training) -> None:
    expected, probabilities, _ = training()

    class Killed(BaseException):
        pass

    def kill_after_seven() -> bool:
        if is_last_call():
            raise Killed
        return False

    is_last_call = Countdown(8)
    with pytest.raises(Killed):
        training(kill_after_seven, interval_seconds=0)
    steps: list[bool] = []
    resumed, resumed_probabilities, _ = training(lambda: bool(steps.append(True)))
    assert len(steps) < 16 + 6 + 1  # fewer calls than a training from the start makes
    assert without_seconds(resumed.epochs) == without_seconds(expected.epochs)
    assert resumed_probabilities == probabilities


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "other identity", "empty"])
def test_damaged_or_foreign_checkpoint_is_ignored(training: Training, damage: str) -> None:
    expected, probabilities, _ = training()
    with pytest.raises(StopRequested):
        training(Countdown(9), identity="other" if damage == "other identity" else "this")
    data = bytearray(training.path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "empty":
        data = bytearray()
    elif damage == "bit flipped":
        data[len(data) // 2] ^= 4
    training.path.write_bytes(data)
    restarted, restarted_probabilities, _ = training()
    assert without_seconds(restarted.epochs) == without_seconds(expected.epochs)
    assert restarted_probabilities == probabilities


def test_signals_are_deferred_and_raised_afterwards() -> None:
    import signal

    from toxbench.util.processes import SignalStop

    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with SignalStop().watching() as should_stop:
            assert not should_stop()
            signal.raise_signal(signal.SIGTERM)
            assert should_stop()
            assert received == []
        assert received == [signal.SIGTERM]
        with SignalStop().watching():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # the second one is not deferred
            assert len(received) >= 3
    finally:
        signal.signal(signal.SIGTERM, before)
