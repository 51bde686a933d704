"""Operations of the contract tests on a backbone's module: build, run, train, save.

Imports torch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from toxbench.plugin.contracts import Backbone
from toxbench.settings import TrainSettings
from toxbench.training.head import Head
from toxbench.training.predictor import checked_logits

STEPS = 3
# The bias of an attention key adds the same to all scores of a query, which the softmax ignores:
# its gradient is zero apart from rounding. Such a parameter only has to be connected.
_ZERO_GRADIENT_SUFFIXES = ("key.bias", "key_proj.bias", "k_proj.bias", "k_lin.bias", "k.bias")


@dataclass(frozen=True)
class TokenRows:
    """Token ids of several texts.

    Attributes:
        ids: token ids of each row, not padded.
        pad_id: token id of the padding.
    """

    ids: tuple[tuple[int, ...], ...]
    pad_id: int

    def __getitem__(self, rows: slice) -> "TokenRows":
        """Return a slice of the rows."""
        return TokenRows(self.ids[rows], self.pad_id)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    @property
    def max_tokens(self) -> int:
        """Number of tokens of the longest row."""
        return max(map(len, self.ids))

    def batch(self, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask, int64 ``[batch, token]``, padded as in the training loop.

        Args:
            width: tokens of each row; None: of the longest row.
        """
        width = width or self.max_tokens
        ids = torch.full((len(self.ids), width), self.pad_id)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(self.ids):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids, mask


def tokenize(backbone: Backbone, checkpoint: Path, texts: Sequence[str]) -> TokenRows:
    """Tokenize texts with the default ``max_length``."""
    tokenizer = backbone.tokenizer(checkpoint)
    max_length = TrainSettings().max_length
    ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return TokenRows(tuple(map(tuple, ids)), tokenizer.pad_token_id or 0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the context, and restore its generator afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_module(backbone: Backbone, checkpoint: Path, labels: int, seed: int = 0) -> nn.Module:
    """Seed torch and build a module.

    Raises:
        TypeError: the backbone returned another type.
    """
    with seeded(seed):
        module = backbone.build(checkpoint, labels)
    if not isinstance(module, nn.Module):
        raise TypeError(f"build returned {type(module).__name__}, not a torch.nn.Module")
    return module


def generator_state_after_build(backbone: Backbone, checkpoint: Path, seed: int) -> bytes:
    """Return the state of torch's generator after building with a seed."""
    with seeded(seed):
        backbone.build(checkpoint, 1)
        return torch.get_rng_state().numpy().tobytes()


def find_random_parameters(backbone: Backbone, checkpoint: Path, labels: int) -> set[str]:
    """Return the names of the trainable parameters that depend on the seed of the build."""
    first, second = (build_module(backbone, checkpoint, labels, seed) for seed in (0, 1))
    pairs = zip(first.named_parameters(), second.parameters(), strict=True)
    return {name for (name, a), b in pairs if a.requires_grad and not torch.equal(a, b)}


def compute_logits(
    module: nn.Module, rows: TokenRows, labels: int, width: int | None = None
) -> torch.Tensor:
    """Return float32 logits ``[batch, label]``, validated as in the training loop."""
    ids, mask = rows.batch(width)
    with torch.no_grad():
        return checked_logits(module(input_ids=ids, attention_mask=mask), len(rows), labels)


def compute_constant_logits(
    backbone: Backbone, module: nn.Module, rows: TokenRows, labels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Set the last layer to a constant; return the constant ``[label]`` and the logits.

    Raises:
        PluginError: the head has no such layer.
    """
    last = Head(backbone.head, backbone.last_layer).last_layer(module, labels)
    constant = torch.arange(1.0, labels + 1)
    with torch.no_grad():
        last.weight.zero_()
        if last.bias is None:
            constant.zero_()
        else:
            last.bias.copy_(constant)
    return constant, compute_logits(module, rows, labels)


def train_module(backbone: Backbone, checkpoint: Path, rows: TokenRows, labels: int) -> nn.Module:
    """Build a module with a seed, train it for some steps, and return it in eval mode."""
    with seeded(0):
        module = backbone.build(checkpoint, labels)
        for _ in _train_steps(module, rows, labels):
            pass
    return module.eval()


def find_parameters_without_gradient(
    backbone: Backbone, checkpoint: Path, rows: TokenRows, labels: int
) -> set[str]:
    """Return the names of the trainable parameters whose gradients are zero in all steps."""
    with seeded(0):
        module = backbone.build(checkpoint, labels)
        names = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        for names_with_gradient in _train_steps(module, rows, labels):
            names -= names_with_gradient
    return names


def _train_steps(module: nn.Module, rows: TokenRows, labels: int) -> Iterator[set[str]]:
    """Train a module; after each step, yield the names of the parameters with a gradient."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    ids, mask = rows.batch()
    targets = (torch.arange(len(ids) * labels).view(-1, labels) % 2).float()
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        logits = checked_logits(module(input_ids=ids, attention_mask=mask), len(ids), labels)
        functional.binary_cross_entropy_with_logits(logits, targets).backward()  # type: ignore[no-untyped-call]
        yield {name for name, p in module.named_parameters() if _has_gradient(name, p)}
        optimizer.step()


def _has_gradient(name: str, parameter: nn.Parameter) -> bool:
    if parameter.grad is None:
        return False
    return bool(parameter.grad.any()) or name.endswith(_ZERO_GRADIENT_SUFFIXES)


def copy_state_through_file(source: nn.Module, target: nn.Module, path: Path) -> None:
    """Save one module's state as safetensors and load it into another module.

    Raises:
        TypeError: a value of the state is not a tensor.
    """
    # Copies, because safetensors refuses tensors that share memory.
    state = {name: value.detach().clone().contiguous() for name, value in _tensors(source)}
    save_file(state, path)
    target.load_state_dict(load_file(path))


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in module.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} is not a tensor but {type(value).__name__}")
        yield name, value


def max_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest absolute difference; infinity if one is not a number."""
    return float((a - b).abs().nan_to_num(torch.inf).max())


def rounding_tolerance(logits: torch.Tensor) -> float:
    """Return the largest difference that rounding explains in logits of this size."""
    return 1e-4 * max(1.0, float(logits.abs().max()))
