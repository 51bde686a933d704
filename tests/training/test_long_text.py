"""Windows of long comments: rows have the largest logits of their windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import build_classifier
from torch.nn import functional
from transformers import AutoTokenizer

from toxbench import TrainSettings
from toxbench.data.protocol import Split
from toxbench.data.tokenization import tokenise_uncached
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.settings import LongText
from toxbench.training.dataloader import Batcher
from toxbench.training.device import choose_device, seeded
from toxbench.training.head import Head
from toxbench.training.predictor import Predictor
from toxbench.training.trainer import Optimizations, Trainer

ROWS, LABELS, MAX_LENGTH = 12, 3, 8
TEXTS = [f"{'you fool ' * row}thank you again" for row in range(ROWS)]
TARGETS = np.random.default_rng(0).integers(0, 2, size=(ROWS, LABELS)).astype(np.uint8)
ALL = np.arange(ROWS)
CPU = choose_device("cpu", "fp32")


def make_trainer(
    checkpoint: Path, texts: list[str], long_text: LongText = "windows", **changes: Any
) -> Trainer:
    values = {"max_length": MAX_LENGTH, "precision": "fp32", "batch_size": 5, **changes}
    settings = TrainSettings(long_text=long_text, **values)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokens = tokenise_uncached(tokenizer, texts, settings.max_length, long_text)
    torch.manual_seed(0)
    module = build_classifier(checkpoint, LABELS)
    return Trainer(
        module, Head(("classifier",)), tokens, TARGETS, settings, CPU,
        Optimizations(trimmed_embedding=False),
    )  # fmt: skip


def train(trainer: Trainer, validation: int = 0) -> None:
    split = Split(ALL[validation:], ALL[:validation], ALL[:0])
    with seeded(0, CPU):
        trainer.train(split, 0, epoch_scores, lambda epoch: None)


def window_batches(checkpoint: Path) -> list[Any]:
    """Return the windows of each text, padded, without the code of toxbench."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    options = {"max_length": MAX_LENGTH, "stride": MAX_LENGTH // 4, "truncation": True}
    batches = []
    for text in TEXTS:
        batch = tokenizer(
            text, return_overflowing_tokens=True, padding=True, return_tensors="pt", **options
        )
        batches.append({name: batch[name] for name in ("input_ids", "attention_mask")})
    assert {len(batch["input_ids"]) for batch in batches} == set(range(1, 7))
    return batches


def pooled_logits(module: Any, checkpoint: Path) -> torch.Tensor:
    batches = window_batches(checkpoint)
    return torch.stack([module(**batch).logits.max(dim=0).values for batch in batches])


@pytest.mark.parametrize("padding", ["bucket", "max_length"])
def test_logits_are_the_largest_of_windows(checkpoint: Path, padding: str) -> None:
    trainer = make_trainer(checkpoint, TEXTS, padding=padding)
    rows = ALL[::-1].copy()
    probabilities = trainer.predict(rows)
    with torch.inference_mode():
        expected = pooled_logits(trainer.module.eval(), checkpoint).sigmoid()[rows]
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_a_row_with_windows_counts_once(checkpoint: Path) -> None:
    """The gradient is that of one batch, although its passes have at most twelve windows."""
    trainer = make_trainer(
        checkpoint, TEXTS, dropout=0.0, warmup=0.0, head_init="random", epochs=1, batch_size=ROWS
    )
    module = build_classifier(checkpoint, LABELS).train()
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    module.load_state_dict(trainer.module.state_dict())
    targets = torch.tensor(TARGETS, dtype=torch.float32)
    logits = pooled_logits(module, checkpoint)
    functional.binary_cross_entropy_with_logits(logits, targets).backward()  # type: ignore[no-untyped-call]
    gradients: dict[str, torch.Tensor] = {}
    passes: list[int] = []
    trainer.module.register_forward_pre_hook(
        lambda _, arguments, inputs: passes.append(len(inputs["input_ids"])), with_kwargs=True
    )
    for name, parameter in trainer.module.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, name=name: gradients.update({name: p.grad.clone()})
        )
    train(trainer)
    assert len(passes) > 1
    assert max(passes) <= ROWS < sum(passes)
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_short_rows_give_the_same_bytes(checkpoint: Path) -> None:
    def probabilities(long_text: LongText, texts: list[str]) -> bytes:
        trainer = make_trainer(checkpoint, texts, long_text, epochs=2, learning_rate=1e-3)
        train(trainer, validation=4)
        return trainer.predict(ALL).tobytes()

    short = [" ".join(text.split()[-5:]) for text in TEXTS]
    assert probabilities("head", short) == probabilities("windows", short)
    assert probabilities("head-tail", short) == probabilities("windows", short)
    assert probabilities("head", TEXTS) != probabilities("windows", TEXTS)


def test_features_are_the_mean_over_windows(checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokens = tokenise_uncached(tokenizer, TEXTS, MAX_LENGTH, "windows")
    module = build_classifier(checkpoint, LABELS).eval()
    batcher = Batcher(tokens, TARGETS, CPU.torch)
    last: Any = module.classifier
    features = Predictor(module, LABELS, MAX_LENGTH, CPU).features(batcher, ALL, last)
    with torch.inference_mode():
        expected = [
            module.bert(**batch).pooler_output.mean(dim=0)  # type: ignore[operator]
            for batch in window_batches(checkpoint)
        ]
    np.testing.assert_allclose(features, torch.stack(expected), atol=1e-6)
