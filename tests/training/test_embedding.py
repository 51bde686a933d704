"""Training only the used rows of a token embedding learns the same as training all rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import build_classifier, write_checkpoint
from torch import nn
from transformers import AutoModel

from toxbench import TrainSettings
from toxbench.data.protocol import Split
from toxbench.data.tokenization import Tokens
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.training.device import choose_device, seeded
from toxbench.training.head import Head
from toxbench.training.parameters import TrimmedEmbedding, trim_embedding
from toxbench.training.trainer import NO_OPTIMIZATIONS, Optimizations, Trainer

ROWS, LABELS = 24, 3
PARTS = np.split(np.arange(ROWS), [16, 20])
SPLIT = Split(*PARTS)
USED = [0, 5, 6, 9]  # 0 is the padding


@pytest.fixture
def tokens() -> Tokens:
    ids = np.resize(np.array([5, 9, 6, 6, 5], dtype=np.int32), ROWS * 4)
    rows = np.arange(ROWS + 1)
    return Tokens(ids, rows * 4, rows, 0, np.zeros(ROWS, dtype=np.int32))


def train_module(
    folder: Path, tokens: Tokens, optimizations: Optimizations, **changes: Any
) -> nn.Module:
    torch.manual_seed(0)
    module = build_classifier(folder, LABELS)
    targets = np.random.default_rng(0).integers(0, 2, size=(ROWS, LABELS)).astype(np.uint8)
    values = {
        "epochs": 2,
        "batch_size": 4,
        "precision": "fp32",
        "dropout": 0.0,
        "learning_rate": 1e-3,
    }
    settings = TrainSettings(**(values | changes))
    device = choose_device("cpu", "fp32")
    with seeded(0, device):
        head = Head(("classifier",))
        trainer = Trainer(module, head, tokens, targets, settings, device, optimizations)
        trainer.train(SPLIT, 0, epoch_scores, lambda epoch: None)
    return module


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_used_weights_learn_the_same(tmp_path: Path, tokens: Tokens, model_type: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", model_type)
    plain = train_module(folder, tokens, NO_OPTIMIZATIONS).state_dict()
    trimmed = train_module(folder, tokens, Optimizations()).state_dict()
    assert plain.keys() == trimmed.keys()
    before = AutoModel.from_pretrained(folder).get_input_embeddings().weight.detach()
    for name, value in plain.items():
        if name.endswith("word_embeddings.weight"):
            torch.testing.assert_close(trimmed[name][USED], value[USED], rtol=1e-4, atol=1e-6)
            unused = np.setdiff1d(np.arange(len(before)), USED)
            assert torch.equal(trimmed[name][unused], before[unused])
            assert not torch.equal(trimmed[name][5], before[5])
        else:
            torch.testing.assert_close(trimmed[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_embedding_is_trimmed_inside_the_context(checkpoint: Path) -> None:
    module = build_classifier(checkpoint, LABELS)
    full = module.base_model.get_input_embeddings()
    ids = torch.tensor(USED)
    with trim_embedding(module, ids, lambda: module(ids[None], torch.ones(1, 4))):
        trimmed = module.base_model.get_input_embeddings()
        assert isinstance(trimmed, TrimmedEmbedding)
        assert trimmed.weight.shape[0] == len(USED)
        assert torch.equal(trimmed(ids), full(ids))
    assert module.base_model.get_input_embeddings() is full


class Prompted(nn.Module):
    """Adds a prompt of one token before each comment."""

    def __init__(self, folder: Path, prompt_id: int) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, LABELS)
        self.prompt_id = prompt_id

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        prompt = torch.full_like(input_ids[:, :1], self.prompt_id)
        ids = torch.cat([prompt, input_ids], dim=1)
        mask = torch.cat([torch.ones_like(prompt), attention_mask], dim=1)
        logits: torch.Tensor = self.classifier(self.encoder(ids, mask).last_hidden_state[:, 0])
        return logits


def test_token_added_by_the_module_is_trained(checkpoint: Path, tokens: Tokens) -> None:
    module = Prompted(checkpoint, prompt_id=17)
    embedding = module.encoder.get_input_embeddings()
    before = embedding.weight.detach().clone()
    device = choose_device("cpu", "fp32")
    settings = TrainSettings(epochs=1, batch_size=4, precision="fp32")
    targets = np.eye(ROWS, LABELS, dtype=np.uint8)
    trainer = Trainer(module, Head(("classifier",)), tokens, targets, settings, device)
    trainer.train(SPLIT, 0, epoch_scores, lambda epoch: None)
    changed = (embedding.weight != before).any(dim=1).nonzero()[:, 0].tolist()
    assert {5, 17} <= set(changed) <= {*USED, 17}


class Tied(nn.Module):
    """Shares the embedding's weight with a decoder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        self.decoder = nn.Linear(1, 1, bias=False)
        self.decoder.weight = self.encoder.get_input_embeddings().weight


def test_tied_frozen_and_custom_embeddings_are_unchanged(checkpoint: Path) -> None:
    tied = Tied(checkpoint)
    frozen = build_classifier(checkpoint, LABELS)
    frozen.base_model.get_input_embeddings().requires_grad_(requires_grad=False)
    custom = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, LABELS))
    for module in (tied, frozen, custom):
        with trim_embedding(module, torch.tensor(USED), lambda: None):
            assert not any(isinstance(child, TrimmedEmbedding) for child in module.modules())


def test_mostly_used_embedding_is_unchanged(checkpoint: Path) -> None:
    module = build_classifier(checkpoint, LABELS)
    count = module.base_model.config.vocab_size
    with trim_embedding(module, torch.arange(count // 2 + 1), lambda: None):
        assert not any(isinstance(child, TrimmedEmbedding) for child in module.modules())


def test_embedding_is_restored_after_an_error(checkpoint: Path, tokens: Tokens) -> None:
    module = build_classifier(checkpoint, LABELS)
    full = module.base_model.get_input_embeddings()
    with (
        pytest.raises(ZeroDivisionError),
        trim_embedding(module, torch.tensor(USED), lambda: None),
    ):
        raise ZeroDivisionError
    assert module.base_model.get_input_embeddings() is full
