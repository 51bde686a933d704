"""Torch modules for backbones: a classification head, and its conversion to transformers."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from toxbench.errors import PluginError

# (path of the list of layers, path in a layer of the module after attention). The inputs of that
# module are the only inputs of the rest of the layer.
_LAYERS = (("encoder.layer", "attention.output"), ("transformer.layer", "sa_layer_norm"))
# Classifiers of transformers have a dense layer and an activation between the first token and the
# last layer: model type -> (dense layer, last layer, activation).
_HEADS = {
    "bert": ("bert.pooler.dense", "classifier", "tanh"),
    "roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "camembert": ("classifier.dense", "classifier.out_proj", "tanh"),
    "distilbert": ("pre_classifier", "classifier", "relu or gelu"),
    "electra": ("classifier.dense", "classifier.out_proj", "relu or gelu"),
}
# tanh(e x) = e x - (e x)^3 / 3 + ...: with e = 2^-14, scaling is exact, and the error for a hidden
# value of 20 is 5e-7 of its size, about the rounding of a sum in fp32.
_SCALE = 2.0**-14
# relu(x + s) = x + s, and gelu(x + s) = x + s to the last bit of fp32, if x + s is above 6.
# Hidden values come out of a layer norm; s = 32 is enough for any value that was observed.
_SHIFT = 32.0


class FirstTokenClassifier(nn.Module):
    """An encoder with dropout and a linear layer on the first token; no pooler."""

    def __init__(self, weights: Path, label_count: int, dropout: float = 0.1) -> None:
        super().__init__()
        refuse_remote_code(weights)
        self.encoder = AutoModel.from_pretrained(
            weights,
            dtype=torch.float32,  # see Backbone.build
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            add_pooling_layer=False,
        )
        restrict_to_first_token(self.encoder)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, label_count)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits ``[batch, label]`` for ids and mask ``[batch, token]``."""
        encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        logits: torch.Tensor = self.classifier(self.dropout(encoded.last_hidden_state[:, 0]))
        return logits


def refuse_remote_code(weights: Path) -> None:
    """Refuse a checkpoint whose architecture is Python code stored with its weights.

    Such code is never run. (The message of transformers would advise the user to allow it.)

    Raises:
        PluginError: the checkpoint needs such code.
    """
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise PluginError(
            "the checkpoint needs the Python code that comes with it (auto_map in config.json), "
            "and such code is never run; choose an architecture of transformers, or write a "
            "plugin that builds it"
        )


def restrict_to_first_token(encoder: nn.Module) -> None:
    """Compute only the first token after the attention of the last layer of BERT or DistilBERT.

    A classifier that reads the first token has the same logits. It saves an eighth of the matrix
    products of an encoder with six layers, and a quarter with three (measured in
    tests/bench/test_tricks.py). Encoders of another structure are not changed.
    """
    for layers_path, after_attention_path in _LAYERS:
        layers = _submodule(encoder, layers_path)
        if isinstance(layers, nn.ModuleList):
            after_attention = _submodule(layers[-1], after_attention_path)
            if after_attention is not None:
                after_attention.register_forward_pre_hook(_keep_first_token)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the load reports and progress bars of transformers: a new head is expected."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    had_bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(40)  # logging.ERROR
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def to_transformers_model(module: nn.Module) -> PreTrainedModel:
    """Return a model of transformers with the same logits.

    Raises:
        PluginError: transformers has no class for the module.
    """
    if isinstance(module, PreTrainedModel):
        return module
    if isinstance(module, FirstTokenClassifier):
        return _convert_first_token_classifier(module)
    raise PluginError(
        f"{type(module).__name__} is not a class of transformers, and its plugin does not convert "
        "it to one (Backbone.exported); toxbench predict works with the module itself"
    )


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split("."):
        child = getattr(module, name, None)
        if not isinstance(child, nn.Module):
            return None
        module = child
    return module


def _keep_first_token(
    module: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Cut each input ``[batch, token, size]`` to ``[batch, 1, size]``."""
    return tuple(tensor[:, :1] for tensor in inputs)


def _convert_first_token_classifier(module: FirstTokenClassifier) -> PreTrainedModel:
    """Copy the trained weights into the architecture's class, with a neutral dense layer.

    The dense layer scales or shifts the first token into the range in which the activation is
    linear, and the last layer reverses that.
    """
    config = copy.deepcopy(module.encoder.config)
    has_class = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if config.model_type not in _HEADS or not has_class:
        raise PluginError(
            f"transformers has no class for a first-token classifier over {config.model_type}; "
            "toxbench predict works with the module itself"
        )
    config.num_labels = module.classifier.out_features
    auto_class: Any = AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):  # the random weights are overwritten below
        model: PreTrainedModel = auto_class.from_config(config).eval()
    model.base_model.load_state_dict(module.encoder.state_dict(), strict=False)
    dense_path, last_path, activation = _HEADS[config.model_type]
    dense, last = _linear_layer(model, dense_path), _linear_layer(model, last_path)
    weight, bias = module.classifier.weight.detach(), module.classifier.bias.detach()
    with torch.no_grad():
        if activation == "tanh":
            dense.weight.copy_(torch.eye(dense.in_features) * _SCALE)
            dense.bias.zero_()
            last.weight.copy_(weight / _SCALE)
            last.bias.copy_(bias)
        else:
            dense.weight.copy_(torch.eye(dense.in_features))
            dense.bias.fill_(_SHIFT)
            last.weight.copy_(weight)
            last.bias.copy_((bias.double() - weight.double().sum(dim=1) * _SHIFT).float())
    return model


def _linear_layer(model: nn.Module, path: str) -> nn.Linear:
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Linear)  # noqa: S101 - a layer of the class built above
    return layer
