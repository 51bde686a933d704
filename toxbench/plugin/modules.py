"""Classification heads for encoders whose own head is of no use. Imports torch."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    pass


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


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' load reports and bars off the terminal; a new head is no news here."""
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


# transformers' classifiers put a dense layer and a bend between the first token and the last layer:
# model type -> that dense layer, the last layer, the bend.
_HEADS = {
    "bert": ("bert.pooler.dense", "classifier", "tanh"),
    "roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "camembert": ("classifier.dense", "classifier.out_proj", "tanh"),
    "distilbert": ("pre_classifier", "classifier", "ramp"),
    "electra": ("classifier.dense", "classifier.out_proj", "ramp"),
}
# tanh(e x) = e x - (e x)^3 / 3 + ...: with e = 2^-14, scaling is exact, and of a hidden value of 20
# the bend takes 5e-7 of its size, which is about the rounding of a sum in fp32.
_SMALL = 2.0**-14
# relu(x + s) = x + s, and gelu(x + s) = x + s to the last bit of fp32, where x + s is above 6.
# Hidden values come out of a layer norm; s = 32 leaves room for any that were seen.
_SHIFT = 32.0


def standard_model(module: nn.Module) -> PreTrainedModel:
    """Return a model of transformers with the same logits.

    Raises:
        PluginError: there is none.
    """
    if isinstance(module, PreTrainedModel):
        return module
    if isinstance(module, FirstTokenClassifier):
        return _without_detour(module)
    raise PluginError(
        f"{type(module).__name__} is no class of transformers, and its plugin does not say how to "
        "express it as one (Backbone.exported); toxbench predict works with it as it is"
    )


def _without_detour(module: FirstTokenClassifier) -> PreTrainedModel:
    """Put the trained weights into the class of its architecture, whose dense layer does nothing.

    The dense layer passes the first token on, so small or so large that the bend behind it is
    a straight line there, and the last layer undoes that.
    """
    config = copy.deepcopy(module.encoder.config)
    known = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if config.model_type not in _HEADS or not known:
        raise PluginError(
            f"a first-token classifier over {config.model_type} is no class of transformers; "
            "toxbench predict works with it as it is"
        )
    config.num_labels = module.classifier.out_features
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten below
        made: Any = AutoModelForSequenceClassification
        model: PreTrainedModel = made.from_config(config).eval()
    model.base_model.load_state_dict(module.encoder.state_dict(), strict=False)
    dense_name, last_name, bend = _HEADS[config.model_type]
    dense, last = _linear(model, dense_name), _linear(model, last_name)
    weight, bias = module.classifier.weight.detach(), module.classifier.bias.detach()
    with torch.no_grad():
        if bend == "tanh":
            dense.weight.copy_(torch.eye(dense.in_features) * _SMALL)
            dense.bias.zero_()
            last.weight.copy_(weight / _SMALL)
            last.bias.copy_(bias)
        else:
            dense.weight.copy_(torch.eye(dense.in_features))
            dense.bias.fill_(_SHIFT)
            last.weight.copy_(weight)
            last.bias.copy_((bias.double() - weight.double().sum(dim=1) * _SHIFT).float())
    return model


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)  # noqa: S101 - of the class that was just made
    return layer
