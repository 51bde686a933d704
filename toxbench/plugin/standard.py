"""Modules of toxbench as classes that transformers has. Imports torch."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from toxbench.errors import PluginError
from toxbench.plugin.heads import FirstTokenClassifier

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
