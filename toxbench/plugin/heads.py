"""Classification heads for encoders whose own head is of no use. Imports torch."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel


class FirstTokenClassifier(nn.Module):
    """The last hidden state of the first token, dropout, one linear layer; no pooler."""

    def __init__(self, weights: Path, label_count: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(
            weights,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            add_pooling_layer=False,
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, label_count)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits ``[batch, label]`` for ids and mask ``[batch, token]``."""
        encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        logits: torch.Tensor = self.classifier(self.dropout(encoded.last_hidden_state[:, 0]))
        return logits
