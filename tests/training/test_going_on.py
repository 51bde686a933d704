"""Looks every few steps, early ends, and trainings that go on from where they were stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toxbench import TrainSettings, first_token_classifier
from toxbench.data.protocol import Split
from toxbench.data.tokenization import Tokens
from toxbench.evaluation.early_stopping import EpochSelector, Patience, epoch_scores
from toxbench.records import EpochRecord
from toxbench.training.device import choose_device, seeded
from toxbench.training.optimizer import num_evaluations
from toxbench.training.state import FileCheckpoints, Trained
from toxbench.training.trainer import Trainer
from toxbench.util.signals import StopRequested

ROWS, LABELS = 48, 3
SPLIT = Split(np.arange(32), np.arange(32, 40), np.arange(40, 48))
FAST = {"learning_rate": 3e-3, "head_learning_rate": 3e-2, "batch_size": 8}
EVERY = {"eval_steps": 3, "epochs": 4, "dropout": 0.1}  # 4 steps an epoch: 16 steps, 6 looks


class Countdown:
    """Asks to stop at the so many'th time that it is asked."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


class Training:
    """One training on a path, by a new trainer each time, as new processes would do it."""

    def __init__(self, checkpoint: Path, tokens: Tokens, targets: np.ndarray, path: Path) -> None:
        self.checkpoint, self.tokens, self.targets, self.path = checkpoint, tokens, targets, path

    def __call__(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        seconds: float = 600,
        identity: str = "this",
        **settings: Any,
    ) -> tuple[Trained, bytes, list[EpochRecord]]:
        chosen = TrainSettings(**(FAST | EVERY | settings))
        device = choose_device("cpu", chosen.precision)
        kept = FileCheckpoints(self.path, seconds, {"of": identity}, should_stop)
        heard: list[EpochRecord] = []
        with seeded(1, device):
            module = first_token_classifier(self.checkpoint, LABELS)
            trainer = Trainer(
                module, ("classifier",), self.tokens, self.targets, chosen, device, checkpoints=kept
            )
            choice, patience = EpochSelector(), Patience(chosen.patience)
            trained = trainer.train(
                SPLIT, 1, epoch_scores, choice.should_keep, heard.append, patience.should_stop
            )
            return trained, trainer.predict(np.arange(ROWS)).tobytes(), heard


@pytest.fixture
def training(
    checkpoint: Path,
    tokens: Tokens,
    targets: np.ndarray,
    tmp_path: Path,
) -> Training:
    return Training(checkpoint, tokens, targets, tmp_path / "states" / "one.checkpoint")


def plain(records: tuple[EpochRecord, ...] | list[EpochRecord]) -> list[dict[str, Any]]:
    return [record.model_dump(exclude={"seconds"}) for record in records]


def test_looks_come_after_so_many_steps_and_at_the_end(training: Training) -> None:
    trained, _, heard = training()
    assert [record.step for record in heard] == [3, 6, 9, 12, 15, 16]
    assert [record.epoch for record in heard] == [1, 2, 3, 4, 5, 6]
    assert sum(record.comments or 0 for record in heard) == 4 * len(SPLIT.train)
    assert all(record.validation for record in heard)
    assert trained.epochs == tuple(heard)
    assert num_evaluations(TrainSettings(**(FAST | EVERY)), len(SPLIT.train)) == 6


def test_looks_do_not_change_what_is_learnt(training: Training) -> None:
    last = {"selection": "last", "dropout": 0.0}
    assert training(**last)[1] == training(**last, eval_steps=0)[1]


def test_patience_ends_a_training_and_the_best_weights_stay(training: Training) -> None:
    whole, _, _ = training(learning_rate=0.3, epochs=8)
    best = [record.validation["headline"] or 0.0 for record in whole.epochs]
    ended, _, _ = training(learning_rate=0.3, epochs=8, patience=2)
    number = len(ended.epochs)
    assert plain(ended.epochs) == plain(whole.epochs[:number])
    assert number < len(whole.epochs)
    assert max(best[: number - 2]) >= max(best[number - 2 : number])
    assert ended.best_epoch <= number


@pytest.mark.parametrize("times", [1, 3, 4, 5, 8, 13, 16, 19, 22, 23])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(training: Training, times: int) -> None:
    """In a step, between two epochs, during a look, and while the end is evaluated."""
    trained, probabilities, _ = training()
    with pytest.raises(StopRequested):
        training(Countdown(times))
    assert training.path.is_file()
    again, same, heard = training()
    assert plain(again.epochs) == plain(trained.epochs)
    assert plain(heard) == plain(trained.epochs)
    assert again.best_epoch == trained.best_epoch
    assert same == probabilities


def test_stopped_again_and_again(training: Training) -> None:
    trained, probabilities, _ = training(padding="max_length", max_length=12)
    stops = 0
    while True:
        try:
            again, same, _ = training(Countdown(4), padding="max_length", max_length=12)
            break
        except StopRequested:
            stops += 1
    assert stops > 3
    assert plain(again.epochs) == plain(trained.epochs)
    assert same == probabilities


def test_a_killed_training_goes_on_from_the_last_state(training: Training) -> None:
    trained, probabilities, _ = training()

    class Killed(BaseException):
        pass

    def kill_after_seven() -> bool:
        if left():
            raise Killed
        return False

    left = Countdown(8)
    with pytest.raises(Killed):
        training(kill_after_seven, seconds=0)
    steps: list[bool] = []
    again, same, _ = training(lambda: bool(steps.append(True)))
    assert len(steps) < 16 + 6 + 1  # fewer than all steps and looks were made
    assert plain(again.epochs) == plain(trained.epochs)
    assert same == probabilities


@pytest.mark.parametrize("harm", ["cut", "flipped", "another's", "empty"])
def test_a_state_that_is_not_exactly_this_trainings_is_not_used(
    training: Training, harm: str
) -> None:
    trained, probabilities, _ = training()
    with pytest.raises(StopRequested):
        training(Countdown(9), identity="another" if harm == "another's" else "this")
    data = bytearray(training.path.read_bytes())
    if harm == "cut":
        data = data[: len(data) // 2]
    elif harm == "empty":
        data = bytearray()
    elif harm == "flipped":
        data[len(data) // 2] ^= 4
    training.path.write_bytes(data)
    again, same, _ = training()
    assert plain(again.epochs) == plain(trained.epochs)
    assert same == probabilities


def test_signals_are_held_back_and_then_given_back() -> None:
    import signal

    from toxbench.util.signals import SignalStop

    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with SignalStop().listen() as should_stop:
            assert not should_stop()
            signal.raise_signal(signal.SIGTERM)
            assert should_stop()
            assert heard == []
        assert heard == [signal.SIGTERM]
        with SignalStop().listen():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # the second one is not held back
            assert len(heard) >= 3
    finally:
        signal.signal(signal.SIGTERM, before)
