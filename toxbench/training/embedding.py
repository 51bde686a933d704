"""Training only those rows of a token embedding that the table uses.

A table of 1,000 comments uses about a seventh of a vocabulary of 30,000 tokens, but AdamW, the
gradient's zeros and its norm cost as much for a row that no comment ever looks up.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel


class TrimmedEmbedding(nn.Embedding):
    """Looks up the same ids in an embedding of fewer rows."""

    def __init__(self, whole: nn.Embedding, used: torch.Tensor) -> None:
        """Copy some rows.

        Args:
            whole: all rows.
            used: sorted ids of the rows to keep, int64 ``[row]``.
        """
        rows = whole.weight.detach()[used].clone()
        padding = whole.padding_idx
        place = None if padding is None else int(torch.searchsorted(used, padding))
        super().__init__(len(rows), rows.shape[1], padding_idx=place, _weight=rows)
        self.place: torch.Tensor
        # An id that is not used leads behind the last row, which is an error and not a wrong row.
        places = torch.full((whole.num_embeddings,), len(rows), device=rows.device)
        places[used] = torch.arange(len(rows), device=rows.device)
        self.register_buffer("place", places, persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return ``[..., size]`` for ids ``[...]`` of the whole vocabulary."""
        return super().forward(self.place[input])


@contextmanager
def trim_embedding(
    module: nn.Module, ids: torch.Tensor, forward: Callable[[], object]
) -> Iterator[None]:
    """Inside, the module's token embedding has only the rows that are used; then all again.

    What is learned is the same, but for rows that are not used: AdamW would have shrunk them by
    its weight decay, and here they stay as they are. Modules without exactly one token embedding
    of the plain kind, or that use most of it, are left alone.

    Args:
        module: changed in place; the optimizer must be made inside.
        ids: all ids that the module will be given inside, padding included.
        forward: runs the module once, to see which ids it adds of its own (a prompt, say).
    """
    whole = _token_embedding(module)
    if whole is None:
        yield
        return
    used = _used(whole, ids, forward)
    if 2 * len(used) > whole.num_embeddings:
        yield
        return
    part = TrimmedEmbedding(whole, used)
    _replace(module, whole, part)
    try:
        yield
    finally:
        _replace(module, part, whole)
        with torch.no_grad():
            whole.weight[used] = part.weight


def _used(whole: nn.Embedding, ids: torch.Tensor, forward: Callable[[], object]) -> torch.Tensor:
    """Return the ids that an embedding will look up, sorted."""
    seen = [ids]

    def see(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].flatten())

    handle = whole.register_forward_pre_hook(see)
    try:
        with torch.no_grad():
            forward()
    finally:
        handle.remove()
    if whole.padding_idx is not None:
        seen.append(ids.new_tensor([whole.padding_idx]))
    everything = torch.cat([some.long() for some in seen])
    return everything.bincount(minlength=whole.num_embeddings).nonzero()[:, 0]


def _token_embedding(module: nn.Module) -> nn.Embedding | None:
    """Return the embedding of input ids as Hugging Face models name it, if it can be cut."""
    models = [model for model in module.modules() if isinstance(model, PreTrainedModel)]
    found = {id(embedding): embedding for embedding in map(_input_embedding, models)}
    embedding = next(iter(found.values()), None)
    if len(found) != 1 or type(embedding) is not nn.Embedding:
        return None
    is_plain = (
        embedding.max_norm is None
        and not embedding.scale_grad_by_freq
        and not embedding.sparse
        and embedding.weight.requires_grad
    )
    has_hooks = embedding._forward_hooks or embedding._forward_pre_hooks
    return embedding if is_plain and not has_hooks and not _shared(module, embedding) else None


def _input_embedding(model: PreTrainedModel) -> nn.Module | None:
    try:
        embedding: nn.Module | None = model.get_input_embeddings()
    except NotImplementedError:  # what models without such an embedding raise
        return None
    return embedding


def _shared(module: nn.Module, embedding: nn.Embedding) -> bool:
    """Whether another part of the module uses the same weight."""
    names = [
        name
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if parameter is embedding.weight
    ]
    places = {id(owner) for owner, _ in _owners(module, embedding)}
    return len(names) > len(places)


def _owners(module: nn.Module, child: nn.Module) -> list[tuple[nn.Module, str]]:
    return [
        (owner, name)
        for owner in module.modules()
        for name, other in owner.named_children()
        if other is child
    ]


def _replace(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for owner, name in _owners(module, old):
        setattr(owner, name, new)
