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
        _finish_first_token_only(self.encoder)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, label_count)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits ``[batch, label]`` for ids and mask ``[batch, token]``."""
        encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        logits: torch.Tensor = self.classifier(self.dropout(encoded.last_hidden_state[:, 0]))
        return logits


def _finish_first_token_only(encoder: nn.Module) -> None:
    """Let BERT's last layer go on from attention with the first token alone.

    Nothing else of that layer reaches the classifier, so the logits stay the same, and an eighth
    of the encoder's matrix products is saved: a tenth of an epoch (tests/bench/test_speed.py).
    Encoders of another build are left as they are.
    """
    layers = getattr(getattr(encoder, "encoder", None), "layer", None)
    last = layers[-1] if isinstance(layers, nn.ModuleList) else None
    after_attention = getattr(getattr(last, "attention", None), "output", None)
    if isinstance(after_attention, nn.Module):
        after_attention.register_forward_pre_hook(_first_token)


def _first_token(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Cut each input ``[batch, token, size]`` to ``[batch, 1, size]``."""
    return tuple(tensor[:, :1] for tensor in inputs)
