"""Modules of transformers: a shortcut for those that read one token, and their class for export."""

import torch
from torch import nn
from transformers import PreTrainedModel

from toxbench.errors import PluginError

# (path of the list of layers, path in a layer of the module after attention). The inputs of that
# module are the only inputs of the rest of the layer.
_LAYERS = (("encoder.layer", "attention.output"), ("transformer.layer", "sa_layer_norm"))


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


def to_transformers_model(module: nn.Module) -> PreTrainedModel:
    """Return a model of transformers with the same logits.

    Raises:
        PluginError: transformers has no class for the module.
    """
    if isinstance(module, PreTrainedModel):
        return module
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
