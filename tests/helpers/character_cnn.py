"""The module of a plugin that trains a small network over characters from scratch."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from toxbench import Backbone, TrainSettings, hookimpl

PAD, UNKNOWN = "[PAD]", "[UNK]"
VOCABULARY = [PAD, UNKNOWN, *map(chr, range(32, 127))]


class CharacterCnn(nn.Module):
    """Embeds characters, finds patterns of five, and keeps the largest match of each pattern."""

    def __init__(self, label_count: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), 16)
        self.patterns = nn.Conv1d(16, 32, kernel_size=5, padding=2)
        self.classifier = nn.Linear(32, label_count)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits ``[batch, label]`` for ids and mask ``[batch, token]``."""
        mask = attention_mask[:, None]
        values = self.embedding(input_ids).transpose(1, 2) * mask  # [batch, feature, token]
        matches = self.patterns(values).relu() * mask
        return self.classifier(matches.amax(dim=2))


class CharacterBackbone(Backbone):
    """Has a vocabulary of its own, and reads no weights."""

    def build(self, weights: Path, label_count: int) -> nn.Module:
        """Return a module with random parameters."""
        return CharacterCnn(label_count)

    def tokenizer(self, weights: Path) -> PreTrainedTokenizerBase:
        """Return a tokenizer whose tokens are the printable characters of ASCII."""
        ids = {character: number for number, character in enumerate(VOCABULARY)}
        characters = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
        characters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        return PreTrainedTokenizerFast(
            tokenizer_object=characters, pad_token=PAD, unk_token=UNKNOWN
        )


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Return the backbone, all of whose layers are new and learn at the head's rate."""
    return [
        CharacterBackbone(
            name="character-cnn",
            checkpoint=None,
            defaults=TrainSettings(epochs=4, head_learning_rate=1e-2),
            search_space={},
            head=("embedding", "patterns", "classifier"),
        )
    ]
