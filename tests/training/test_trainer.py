"""The training loop learns, is reproducible, and reports broken contracts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import build_classifier
from torch import nn

from toxbench import TrainSettings
from toxbench.data.protocol import Split
from toxbench.data.tokenization import Tokens
from toxbench.errors import PluginError
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.records import EpochRecord, Scores
from toxbench.training.device import choose_device, seeded
from toxbench.training.head import Head
from toxbench.training.optimizer import make_optimizer, make_scheduler, parameter_groups
from toxbench.training.predictor import checked_logits
from toxbench.training.trainer import DivergedError, Trainer
from toxbench.util.arrays import UNLABELLED

ROWS, LABELS = 48, 3
SPLIT = Split(np.arange(32), np.arange(32, 40), np.arange(40, 48))
FAST = {"learning_rate": 3e-3, "head_learning_rate": 3e-2, "epochs": 6, "batch_size": 8}


DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device")])]  # fmt: skip


def make_trainer(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray, seed: int = 0, kind: str = "cpu",
    **changes: Any,
) -> Trainer:  # fmt: skip
    torch.manual_seed(seed)
    module = build_classifier(checkpoint, LABELS)
    settings = TrainSettings(**(FAST | changes))
    device = choose_device(kind, settings.precision)
    return Trainer(module, Head(("classifier",)), tokens, targets, settings, device)


def train(trainer: Trainer, seed: int = 0, kind: str = "cpu") -> list[EpochRecord]:
    """Train and return the reported epochs."""
    epochs: list[EpochRecord] = []
    with seeded(seed, choose_device(kind)):
        trainer.train(SPLIT, seed, epoch_scores, epochs.append)
    return epochs


def test_predictions_hide_unlabelled_entries(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray
) -> None:
    codes = targets.copy()
    codes[::3, 1] = UNLABELLED
    hidden = make_trainer(checkpoint, tokens, codes).predict(np.arange(ROWS))
    shown = make_trainer(checkpoint, tokens, targets).predict(np.arange(ROWS))
    assert (shown > 0).all()
    np.testing.assert_array_equal(hidden, np.where(codes == UNLABELLED, 0, shown))


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_learns_the_targets(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray, precision: str, kind: str
) -> None:
    trainer = make_trainer(checkpoint, tokens, targets, kind=kind, precision=precision)
    epochs = train(trainer, kind=kind)
    assert epochs[-1].train_loss < 0.5 * epochs[0].train_loss
    predicted = trainer.predict(SPLIT.test) > 0.5
    assert (predicted == targets[SPLIT.test]).all()


@pytest.mark.parametrize("kind", DEVICES)
def test_devices_take_the_same_steps(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray, kind: str
) -> None:
    """In fp32 without dropout, devices differ only by rounding."""

    def losses_and_probabilities(kind: str) -> tuple[list[float], np.ndarray]:
        trainer = make_trainer(
            checkpoint, tokens, targets, kind=kind, precision="fp32", dropout=0.0, epochs=3
        )
        losses = [epoch.train_loss for epoch in train(trainer, kind=kind)]
        return losses, trainer.predict(np.arange(ROWS))

    cpu_losses, cpu_probabilities = losses_and_probabilities("cpu")
    losses, probabilities = losses_and_probabilities(kind)
    np.testing.assert_allclose(losses, cpu_losses, atol=1e-3)
    np.testing.assert_allclose(probabilities, cpu_probabilities, atol=1e-2)
    assert cpu_losses[-1] < 0.8 * cpu_losses[0]


@pytest.mark.parametrize("loss", ["weighted-bce", "focal"])
def test_every_loss_learns(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray, loss: str
) -> None:
    trainer = make_trainer(checkpoint, tokens, targets, loss=loss)
    train(trainer)
    assert ((trainer.predict(SPLIT.test) > 0.5) == targets[SPLIT.test]).all()


def test_seed_determines_the_bytes(checkpoint: Path, tokens: Tokens, targets: np.ndarray) -> None:
    def probabilities(seed: int) -> bytes:
        trainer = make_trainer(checkpoint, tokens, targets, seed, epochs=2)
        train(trainer, seed)
        return trainer.predict(np.arange(ROWS)).tobytes()

    assert probabilities(1) == probabilities(1)
    assert probabilities(1) != probabilities(2)


def test_accumulated_batches_equal_one_large_batch(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray
) -> None:
    def weights(**changes: Any) -> dict[str, torch.Tensor]:
        trainer = make_trainer(
            checkpoint, tokens, targets, epochs=1, optimizer="adam", precision="fp32",
            padding="max_length", max_length=12, clip_norm=0, **changes,
        )  # fmt: skip
        trainer.module.eval()  # without dropout, which would differ
        trainer.module.train = lambda mode=True: trainer.module  # type: ignore[method-assign]
        train(trainer)
        return dict(trainer.module.named_parameters())

    expected = weights(batch_size=16)
    accumulated = weights(batch_size=4, accumulation=4)
    for name, parameter in expected.items():
        torch.testing.assert_close(parameter, accumulated[name], atol=2e-5, rtol=1e-3)


def test_last_epochs_weights_predict(checkpoint: Path, tokens: Tokens, targets: np.ndarray) -> None:
    validated: list[bytes] = []
    trainer = make_trainer(checkpoint, tokens, targets)

    def validate(targets: np.ndarray, probabilities: np.ndarray) -> Scores:
        validated.append(probabilities.tobytes())
        return epoch_scores(targets, probabilities)

    with seeded(0, choose_device("cpu")):
        result = trainer.train(SPLIT, 0, validate, lambda e: None)
    assert len(validated) == len(result.epochs) > 1
    assert trainer.predict(SPLIT.validation).tobytes() == validated[-1]


def test_epochs_without_validation_rows_have_no_scores(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray
) -> None:
    trainer = make_trainer(checkpoint, tokens, targets, epochs=2)
    split = Split(np.arange(40), np.arange(0), np.arange(40, 48))
    result = trainer.train(split, 0, epoch_scores, lambda e: None)
    assert len(result.epochs) == 2
    assert all(epoch.validation == {} for epoch in result.epochs)


def test_test_rows_do_not_influence_training(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray
) -> None:
    inverted = targets.copy()
    inverted[SPLIT.test] = 1 - inverted[SPLIT.test]
    results = []
    for labels in (targets, inverted):
        trainer = make_trainer(checkpoint, tokens, labels, epochs=2)
        train(trainer)
        results.append(trainer.predict(np.arange(ROWS)).tobytes())
    assert results[0] == results[1]


def test_predictions_do_not_depend_on_row_order(
    checkpoint: Path, tokens: Tokens, targets: np.ndarray
) -> None:
    trainer = make_trainer(checkpoint, tokens, targets, precision="fp32")
    order = np.random.default_rng(0).permutation(ROWS)
    forward, shuffled = trainer.predict(np.arange(ROWS)), trainer.predict(order)
    np.testing.assert_allclose(forward[order], shuffled, atol=1e-6)


def test_diverging_loss_is_an_error(checkpoint: Path, tokens: Tokens, targets: np.ndarray) -> None:
    trainer = make_trainer(checkpoint, tokens, targets, learning_rate=1e30, clip_norm=0)
    with pytest.raises(DivergedError, match="lower the learning rate"):
        train(trainer)


class ConstantModule(nn.Module):
    """Returns the same output for every input."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1)
        self.output = output

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.output


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(8, LABELS + 1), r"shape \[8, 4\]"),
        (torch.zeros(8), "shape"),
        (torch.zeros(8, LABELS, dtype=torch.long), "int64"),
        ("logits", "str"),
        (None, "NoneType"),
    ],
)
def test_invalid_logits_are_refused(output: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        checked_logits(output, 8, LABELS)


def test_nan_logits_are_refused_in_eval_mode(tokens: Tokens, targets: np.ndarray) -> None:
    module = ConstantModule(torch.full((ROWS, LABELS), torch.nan))
    head, device = Head(("head",)), choose_device("cpu")
    trainer = Trainer(module, head, tokens, targets, TrainSettings(), device)
    with pytest.raises(PluginError, match="NaN"):
        trainer.predict(np.arange(ROWS))


def test_learning_rate_warms_up_and_decays() -> None:
    settings = TrainSettings(learning_rate=1.0, epochs=2, batch_size=2, warmup=0.2)
    module = nn.ModuleDict({"encoder": nn.Linear(1, 1), "head": nn.Linear(1, 1)})
    groups = parameter_groups(module, Head(("head",)), settings)
    optimizer = make_optimizer(groups, settings, choose_device("cpu"))
    scheduler = make_scheduler(optimizer, settings, row_count=10)
    rates = []
    for _ in range(10):  # 5 steps per epoch
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1.0)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 8)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)
