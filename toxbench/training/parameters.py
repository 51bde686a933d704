"""Training only some parameters of a module: low-rank adapters, or used rows of an embedding.

A table of 1,000 comments uses about a seventh of a vocabulary of 30,000 tokens, but AdamW, the
gradient's zeros and its norm cost as much for a row that is never looked up.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from toxbench.training.head import Head

RANK, ALPHA = 16, 32
# Adapters learn best at about ten times the rate of all weights (Schulman et al. 2025).
RATE_FACTOR = 10.0


class TrimmedEmbedding(nn.Embedding):
    """An embedding with some rows of another one, which are looked up by the same ids."""

    def __init__(self, full: nn.Embedding, used_ids: torch.Tensor) -> None:
        """Copy the used rows.

        Args:
            full: embedding with all rows.
            used_ids: sorted ids of the rows to copy, int64 ``[row]``.
        """
        rows = full.weight.detach()[used_ids].clone()
        padding = full.padding_idx
        padding_row = None if padding is None else int(torch.searchsorted(used_ids, padding))
        super().__init__(len(rows), rows.shape[1], padding_idx=padding_row, _weight=rows)
        self.row_of_id: torch.Tensor
        # An unused id maps to a row past the last one: looking it up is an error, not a wrong row.
        row_of_id = torch.full((full.num_embeddings,), len(rows), device=rows.device)
        row_of_id[used_ids] = torch.arange(len(rows), device=rows.device)
        self.register_buffer("row_of_id", row_of_id, persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return ``[..., size]`` for ids ``[...]`` of the full vocabulary."""
        return super().forward(self.row_of_id[input])


@contextmanager
def trim_embedding(
    module: nn.Module, ids: torch.Tensor, forward: Callable[[], object]
) -> Iterator[None]:
    """Inside the context, reduce the module's token embedding to its used rows.

    Afterwards the full embedding is back, with the trained values of the used rows. The used rows
    learn the same as without trimming. Unused rows keep their values; without trimming, AdamW's
    weight decay shrinks them. A module is not changed if it does not have exactly one token
    embedding, if that embedding has special options, hooks or shared weights, or if the table uses
    more than half of its rows.

    Args:
        module: changed in place; the optimizer must be made inside the context.
        ids: all ids of the inputs inside the context, padding included; int64 ``[id]``.
        forward: runs the module once, to find ids that the module adds itself, such as a prompt.
    """
    full = _token_embedding(module)
    if full is None:
        yield
        return
    used_ids = _used_ids(full, ids, forward)
    if 2 * len(used_ids) > full.num_embeddings:
        yield
        return
    trimmed = TrimmedEmbedding(full, used_ids)
    _replace(module, full, trimmed)
    try:
        yield
    finally:
        _replace(module, trimmed, full)
        with torch.no_grad():
            full.weight[used_ids] = trimmed.weight


def _used_ids(
    embedding: nn.Embedding, ids: torch.Tensor, forward: Callable[[], object]
) -> torch.Tensor:
    """Return the sorted ids that an embedding will look up, int64 ``[id]``."""
    inputs_seen = [ids]

    def record_inputs(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        inputs_seen.append(inputs[0].flatten())

    handle = embedding.register_forward_pre_hook(record_inputs)
    try:
        with torch.no_grad():
            forward()
    finally:
        handle.remove()
    if embedding.padding_idx is not None:
        inputs_seen.append(ids.new_tensor([embedding.padding_idx]))
    all_ids = torch.cat([tensor.long() for tensor in inputs_seen])
    return all_ids.bincount(minlength=embedding.num_embeddings).nonzero()[:, 0]


def _token_embedding(module: nn.Module) -> nn.Embedding | None:
    """Return the input embedding of the module's Hugging Face model, if it can be trimmed."""
    models = [model for model in module.modules() if isinstance(model, PreTrainedModel)]
    embeddings = {id(embedding): embedding for embedding in map(input_embedding, models)}
    embedding = next(iter(embeddings.values()), None)
    if len(embeddings) != 1 or type(embedding) is not nn.Embedding:
        return None
    is_plain = (
        embedding.max_norm is None
        and not embedding.scale_grad_by_freq
        and not embedding.sparse
        and embedding.weight.requires_grad
    )
    has_hooks = embedding._forward_hooks or embedding._forward_pre_hooks
    return embedding if is_plain and not has_hooks and not _is_tied(module, embedding) else None


def input_embedding(model: PreTrainedModel) -> nn.Module | None:
    """Return a model's token embedding; None if it has none."""
    try:
        embedding: nn.Module | None = model.get_input_embeddings()
    except NotImplementedError:  # raised by models without such an embedding
        return None
    return embedding


def _is_tied(module: nn.Module, embedding: nn.Embedding) -> bool:
    """Whether another part of the module uses the embedding's weight."""
    names = [
        name
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if parameter is embedding.weight
    ]
    parents = {id(parent) for parent, _ in _parents(module, embedding)}
    return len(names) > len(parents)


def _parents(module: nn.Module, target: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return each parent of a submodule, with the attribute's name."""
    return [
        (parent, name)
        for parent in module.modules()
        for name, child in parent.named_children()
        if child is target
    ]


def _replace(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent, name in _parents(module, old):
        setattr(parent, name, new)


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
