"""The gradients of the training loop equal those of plain transformers code in float32."""

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
from toxbench.data.samples import sample_comments
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.plugin.contracts import Backbone
from toxbench.plugin.registry import Registry
from toxbench.training.device import choose_device
from toxbench.training.head import Head
from toxbench.training.optimizer import set_dropout
from toxbench.training.trainer import Optimizations, Trainer
from toxbench.training.weights import WeightsChoice, WeightsFinder

ROWS = 16
SETTINGS = TrainSettings(
    epochs=1, batch_size=ROWS, dropout=0.0, warmup=0.0, max_length=64, head_init="random"
)
Gradients = dict[str, torch.Tensor]


def record_gradients(module: nn.Module) -> Gradients:
    """Return a dictionary that each backward pass fills with copies of the gradients."""
    gradients: Gradients = {}

    def make_hook(name: str) -> Callable[[torch.Tensor], None]:
        def hook(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            gradients[name] = parameter.grad.float().clone()

        return hook

    for name, parameter in module.named_parameters():
        parameter.register_post_accumulate_grad_hook(make_hook(name))
    return gradients


def loop_gradients(module: nn.Module, backbone: Backbone, factory: TrainerFactory) -> Gradients:
    """Return the gradients of one step of the training loop, in bf16."""
    gradients = record_gradients(module)
    comments = sample_comments()
    device = choose_device("cpu", "bf16")
    # A trimmed embedding is another parameter; test_embedding.py tests it.
    optimizations = Optimizations(trimmed_embedding=False)
    tokens = factory.tokens(SETTINGS)
    trainer = Trainer(
        module, Head(backbone.head), tokens, comments.targets, SETTINGS, device, optimizations
    )
    rows = np.arange(ROWS)
    trainer.train(Split(rows, rows[:0], rows[:0]), 0, epoch_scores, lambda e: None)
    return gradients


def plain_gradients(module: nn.Module, folder: Path, backbone: Backbone) -> Gradients:
    """Return the gradients of one batch, without the training loop, in float32."""
    gradients = record_gradients(module.train())
    comments = sample_comments()
    texts = list(comments.texts[:ROWS])
    batch = backbone.tokenizer(folder)(
        texts, truncation=True, max_length=SETTINGS.max_length, padding=True, return_tensors="pt"
    )
    logits = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    targets = torch.tensor(comments.targets[:ROWS], dtype=torch.float32)
    functional.binary_cross_entropy_with_logits(logits, targets).backward()  # type: ignore[no-untyped-call]
    return gradients


@pytest.mark.parametrize("backbone_name", ["bert", "distilbert", "roberta"])
def test_gradients_have_the_direction_of_float32(backbone_name: str) -> None:
    backbone = Registry.discover().backbone(backbone_name).item
    weights = WeightsFinder(WeightsChoice("stand-in")).find(backbone)
    assert weights.folder is not None
    torch.manual_seed(0)
    module = backbone.build(weights.folder, 12)
    reference = AutoModelForSequenceClassification.from_pretrained(weights.folder, num_labels=12)
    set_dropout(reference, 0.0)
    reference.load_state_dict(module.state_dict())
    factory = TrainerFactory(backbone, weights, sample_comments(), choose_device("cpu"), "")
    actual = loop_gradients(module, backbone, factory)
    expected = plain_gradients(reference, weights.folder, backbone)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        # A key's bias adds the same to all scores of a query: its gradient is zero plus rounding.
        if "key.bias" not in name and "k_lin.bias" not in name:
            cosine = functional.cosine_similarity(gradient.flatten(), actual[name].flatten(), 0)
            assert cosine >= 0.999, (name, float(cosine))
