"""Classification heads for encoders whose own head is of no use. Imports torch."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModel

from toxbench.errors import PluginError

# Name of the list of layers -> what follows attention in a layer; its inputs are all that the rest
# of the layer sees.
_LAYERS = (("encoder.layer", "attention.output"), ("transformer.layer", "sa_layer_norm"))


class FirstTokenClassifier(nn.Module):
    """The last hidden state of the first token, dropout, one linear layer; no pooler."""

    def __init__(self, weights: Path, label_count: int, dropout: float = 0.1) -> None:
        super().__init__()
        refuse_own_code(weights)
        self.encoder = AutoModel.from_pretrained(
            weights,
            dtype=torch.float32,  # see Backbone.build
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            add_pooling_layer=False,
        )
        finish_first_token_only(self.encoder)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, label_count)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits ``[batch, label]`` for ids and mask ``[batch, token]``."""
        encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        logits: torch.Tensor = self.classifier(self.dropout(encoded.last_hidden_state[:, 0]))
        return logits


def refuse_own_code(weights: Path) -> None:
    """Refuse a checkpoint whose architecture is Python code beside its weights.

    Code that comes with weights is never run; transformers itself would advise to allow it.

    Raises:
        PluginError: saying so.
    """
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise PluginError(
            "the checkpoint needs Python code of its own (auto_map in config.json), and code that "
            "comes with weights is never run; take an architecture that transformers has, or "
            "write a plugin whose build makes it"
        )


def finish_first_token_only(encoder: nn.Module) -> None:
    """Let the last layer of BERT or DistilBERT go on from attention with the first token alone.

    Nothing else of that layer reaches a classifier that reads the first token, so its logits stay
    the same, and an eighth of the matrix products of six layers is saved, a quarter of three
    layers' (what it is worth in time: tests/bench/test_tricks.py). Encoders of another build are
    left as they are.
    """
    for layers, after_attention in _LAYERS:
        found = _submodule(encoder, layers)
        if isinstance(found, nn.ModuleList):
            last = _submodule(found[-1], after_attention)
            if last is not None:
                last.register_forward_pre_hook(_first_token)


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split("."):
        child = getattr(module, name, None)
        if not isinstance(child, nn.Module):
            return None
        module = child
    return module


def _first_token(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Cut each input ``[batch, token, size]`` to ``[batch, 1, size]``."""
    return tuple(tensor[:, :1] for tensor in inputs)
