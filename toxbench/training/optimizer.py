"""The optimizer, the schedule of its learning rate, and the settings of single layers."""

from typing import Any

import torch
from torch import nn

from toxbench.errors import PluginError
from toxbench.settings import TrainSettings
from toxbench.training.device import Device
from toxbench.training.head import Head


def parameter_groups(
    module: nn.Module, head: Head, settings: TrainSettings
) -> list[dict[str, Any]]:
    """Group trainable parameters by learning rate and weight decay.

    Vectors (biases, normalisation) are not decayed. With ``layer_decay`` below 1, the rate of the
    body shrinks from its top layer down to the embeddings (Howard and Ruder 2018,
    arXiv:1801.06146, section 3.2).

    Args:
        module: see `toxbench.Backbone.build`.
        head: the layers that learn at ``head_learning_rate``.
        settings: learning rates and decays.

    Raises:
        PluginError: no trainable parameter belongs to the head, or ``layer_decay`` is below 1 and
            the body has no list of layers.
    """
    below_top = _layers_below_top(module, head, settings.layer_decay)
    groups: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = (head.contains(name), below_top.get(name, 0), parameter.ndim >= 2)
            groups.setdefault(key, []).append(parameter)
    if not any(is_head for is_head, _, _ in groups):
        raise PluginError(
            f"the built module has none of the head attributes {', '.join(head.names)}; name its "
            "new layers in Backbone(head=...)"
        )
    return [
        {
            "params": parameters,
            "lr": settings.head_learning_rate
            if is_head
            else settings.learning_rate * settings.layer_decay**depth,
            "weight_decay": settings.weight_decay if is_matrix else 0.0,
        }
        for (is_head, depth, is_matrix), parameters in groups.items()
    ]


def set_dropout(module: nn.Module, probability: float | None) -> None:
    """Set the probability of every ``nn.Dropout`` of a module; None changes nothing.

    Raises:
        PluginError: the module has no ``nn.Dropout``.
    """
    if probability is None:
        return
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Dropout)]
    if not layers:
        raise PluginError("dropout is set, but the built module has no nn.Dropout; leave it unset")
    for layer in layers:
        layer.p = probability


def make_optimizer(
    groups: list[dict[str, Any]], settings: TrainSettings, device: Device
) -> torch.optim.Optimizer:
    """Return AdamW or Adam, fused into one kernel if the device supports it."""
    fused = device.kind in {"cpu", "cuda"}
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, fused=fused)
    return torch.optim.AdamW(groups, fused=fused)


def make_scheduler(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, row_count: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a schedule: warm-up from 0, then linear decay to 0 or a constant rate."""
    steps = settings.epochs * steps_per_epoch(settings, row_count)
    warmup = round(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if settings.schedule == "constant":
            return 1.0
        return (steps - step) / max(1, steps - warmup)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def steps_per_epoch(settings: TrainSettings, row_count: int) -> int:
    """Return the number of optimizer steps in one pass over the train rows."""
    batches = -(-row_count // settings.batch_size)
    return -(-batches // settings.accumulation)


def num_evaluations(settings: TrainSettings, row_count: int) -> int:
    """Return the number of evaluations on validation rows in a training without early stopping."""
    steps = settings.epochs * steps_per_epoch(settings, row_count)
    return -(-steps // settings.eval_steps) if settings.eval_steps else settings.epochs


def _layers_below_top(module: nn.Module, head: Head, decay: float) -> dict[str, int]:
    """Return parameter name -> number of layers above it; empty if ``decay`` is 1.

    The layers are the longest ``nn.ModuleList`` of the body that is not part of another one.
    Embeddings are below all layers. Other parameters (a final normalisation, a pooler) are absent
    and count as the top layer.
    """
    if decay == 1.0:
        return {}
    prefix, layer_count = _layer_list(module, head)
    depths: dict[str, int] = {}
    for name, _ in module.named_parameters():
        if name.startswith(f"{prefix}."):
            layer = int(name.removeprefix(f"{prefix}.").partition(".")[0])
            depths[name] = layer_count - 1 - layer
        elif "embed" in name.lower():
            depths[name] = layer_count
    return depths


def _layer_list(module: nn.Module, head: Head) -> tuple[str, int]:
    """Return the name and the length of the body's list of layers."""
    lists = [
        (name, len(child))
        for name, child in module.named_modules()
        if isinstance(child, nn.ModuleList) and not head.contains(name)
    ]
    if not lists:
        raise PluginError(
            "layer_decay below 1 needs a body with an nn.ModuleList of layers; leave it at 1"
        )
    outermost = [
        (name, length)
        for name, length in lists
        if not any(name.startswith(f"{parent}.") for parent, _ in lists)
    ]
    return max(outermost, key=lambda named: named[1])
