"""The fast loop's gradients are those of plain Hugging Face code in float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from toxbench import TrainSettings
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.data.protocol import Split
from toxbench.data.synthetic import sample_comments
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.plugin.contracts import Backbone
from toxbench.plugin.registry import Registry
from toxbench.training.device import choose_device
from toxbench.training.optimizer import set_dropout
from toxbench.training.trainer import Optimizations, Trainer
from toxbench.training.weights import WeightsChoice, WeightsFinder

ROWS = 16
SETTINGS = TrainSettings(epochs=1, batch_size=ROWS, dropout=0.0, warmup=0.0, max_length=64)
Gradients = dict[str, torch.Tensor]


def collect(module: nn.Module) -> Gradients:
    """Return a dictionary that fills with copies of the gradients, as they are complete."""
    found: Gradients = {}

    def keep(name: str) -> Callable[[torch.Tensor], None]:
        def hook(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            found[name] = parameter.grad.float().clone()

        return hook

    for name, parameter in module.named_parameters():
        parameter.register_post_accumulate_grad_hook(keep(name))
    return found


def ours(module: nn.Module, backbone: Backbone, bench: TrainerFactory) -> Gradients:
    """Train one step on one batch with everything that is fast, in this device's precision."""
    found = collect(module)
    comments = sample_comments()
    device = choose_device("cpu", "bf16")
    tricks = Optimizations(
        used_rows=False
    )  # its gradients are another parameter's: test_vocabulary.py
    tokens = bench.tokens(SETTINGS.max_length)
    trainer = Trainer(module, backbone.head, tokens, comments.targets, SETTINGS, device, tricks)
    rows = np.arange(ROWS)
    trainer.train(Split(rows, rows[:0], rows[:0]), 0, epoch_scores, lambda s: True, lambda e: None)
    return found


def plain(module: nn.Module, folder: Path, backbone: Backbone) -> Gradients:
    found = collect(module.train())
    comments = sample_comments()
    texts = list(comments.texts[:ROWS])
    batch = backbone.tokenizer(folder)(
        texts, truncation=True, max_length=SETTINGS.max_length, padding=True, return_tensors="pt"
    )
    logits = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    targets = torch.tensor(comments.targets[:ROWS], dtype=torch.float32)
    functional.binary_cross_entropy_with_logits(logits, targets).backward()  # type: ignore[no-untyped-call]
    return found


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_every_gradient_points_where_float32_points(name: str) -> None:
    backbone = Registry.discover().backbone(name).item
    weights = WeightsFinder(WeightsChoice("stand-in")).find(backbone)
    assert weights.folder is not None
    torch.manual_seed(0)
    module = backbone.build(weights.folder, 12)
    reference = AutoModelForSequenceClassification.from_pretrained(weights.folder, num_labels=12)
    set_dropout(reference, 0.0)
    reference.load_state_dict(module.state_dict())
    bench = TrainerFactory(backbone, weights, sample_comments(), choose_device("cpu"))
    fast, exact = ours(module, backbone, bench), plain(reference, weights.folder, backbone)
    assert fast.keys() == exact.keys()
    for parameter, gradient in exact.items():
        # A key's bias moves all scores of a query alike: its gradient is zero, but for rounding.
        if "key.bias" not in parameter and "k_lin.bias" not in parameter:
            cosine = functional.cosine_similarity(gradient.flatten(), fast[parameter].flatten(), 0)
            assert cosine >= 0.999, (parameter, float(cosine))
