"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685) of a module, by the library peft."""

from typing import Any

from torch import nn

from toxbench.training.head import Head

RANK, ALPHA = 16, 32
# Adapters learn best at about ten times the rate of all weights (Schulman et al. 2025).
RATE_FACTOR = 10.0


def add_adapters(module: nn.Module, head: Head) -> None:
    """Freeze a module except its head, and add an adapter to each linear layer of the body."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not head.contains(f"{name}.weight")
    ]
    config: Any = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets)
    inject_adapter_in_model(config, module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(head.contains(name) or "lora_" in name)


def merge_adapters(module: nn.Module) -> None:
    """Add the adapters to the weights, so that the module has its original layers again."""
    from peft.tuners.lora import LoraLayer

    layers: list[tuple[str, Any]] = list(module.named_modules())
    for name, layer in (named for named in layers if isinstance(named[1], LoraLayer)):
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, layer.get_base_layer())
    module.requires_grad_(True)
