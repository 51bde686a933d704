"""What the contract does with a backbone's module: build, run, train, save. Imports torch."""

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
from toxbench.training.predictor import checked_logits

STEPS = 3
# A key's bias moves all scores of a query alike, which the softmax does not see: its gradient is
# zero but for rounding. Being connected is enough for it.
_ZERO_BY_NATURE = ("key.bias", "key_proj.bias", "k_proj.bias", "k_lin.bias", "k.bias")


@dataclass(frozen=True)
class Rows:
    """The token ids of some texts."""

    ids: tuple[tuple[int, ...], ...]
    pad_id: int

    def __getitem__(self, places: slice) -> "Rows":
        """Return some of the rows."""
        return Rows(self.ids[places], self.pad_id)

    @property
    def each(self) -> range:
        """The places of all rows."""
        return range(len(self.ids))

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(map(len, self.ids))

    def batch(self, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask, int64 ``[batch, token]``, as the training loop pads them."""
        width = width or self.longest
        ids = torch.full((len(self.ids), width), self.pad_id)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(self.ids):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        return ids, mask


def tokenised(backbone: Backbone, checkpoint: Path, texts: Sequence[str]) -> Rows:
    """Tokenise as a run does."""
    tokenizer = backbone.tokenizer(checkpoint)
    most = TrainSettings().max_length
    ids = tokenizer(list(texts), truncation=True, max_length=most)["input_ids"]
    return Rows(tuple(map(tuple, ids)), tokenizer.pad_token_id or 0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch as a run does, and leave its generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def built(backbone: Backbone, checkpoint: Path, labels: int, seed: int = 0) -> nn.Module:
    """Build a module after seeding torch."""
    with seeded(seed):
        module = backbone.build(checkpoint, labels)
    if not isinstance(module, nn.Module):
        raise TypeError(f"build returned {type(module).__name__}, not a torch.nn.Module")
    return module


def state_after(backbone: Backbone, checkpoint: Path, seed: int) -> bytes:
    """Return the state of torch's generator after building with a seed."""
    with seeded(seed):
        backbone.build(checkpoint, 1)
        return torch.get_rng_state().numpy().tobytes()


def drawn(backbone: Backbone, checkpoint: Path, labels: int) -> set[str]:
    """Name the trainable parameters that another seed draws otherwise."""
    one, other = (built(backbone, checkpoint, labels, seed) for seed in (0, 1))
    return {
        name
        for (name, first), second in zip(one.named_parameters(), other.parameters(), strict=True)
        if first.requires_grad and not torch.equal(first, second)
    }


def logits(module: nn.Module, rows: Rows, labels: int, width: int | None = None) -> torch.Tensor:
    """Return float32 logits ``[batch, label]``, checked as the training loop checks them."""
    ids, mask = rows.batch(width)
    with torch.no_grad():
        return checked_logits(module(input_ids=ids, attention_mask=mask), len(rows.ids), labels)


def trained(backbone: Backbone, checkpoint: Path, rows: Rows, labels: int) -> nn.Module:
    """Build with a seed, train some steps, and return the module in eval mode."""
    with seeded(0):
        module = backbone.build(checkpoint, labels)
        for _ in _steps(module, rows, labels):
            pass
    return module.eval()


def unreached(backbone: Backbone, checkpoint: Path, rows: Rows, labels: int) -> set[str]:
    """Name the trainable parameters whose gradients stay zero while training."""
    with seeded(0):
        module = backbone.build(checkpoint, labels)
        waiting = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        for step in _steps(module, rows, labels):
            waiting -= step
    return waiting


def _steps(module: nn.Module, rows: Rows, labels: int) -> Iterator[set[str]]:
    """Train a module; yield the parameters that each step's gradients reach."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    ids, mask = rows.batch()
    targets = (torch.arange(len(ids) * labels).view(-1, labels) % 2).float()
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        output = checked_logits(module(input_ids=ids, attention_mask=mask), len(ids), labels)
        functional.binary_cross_entropy_with_logits(output, targets).backward()  # type: ignore[no-untyped-call]
        yield {name for name, p in module.named_parameters() if _is_reached(name, p)}
        optimizer.step()


def _is_reached(name: str, parameter: nn.Parameter) -> bool:
    if parameter.grad is None:
        return False
    return bool(parameter.grad.any()) or name.endswith(_ZERO_BY_NATURE)


def copy_through_file(source: nn.Module, target: nn.Module, path: Path) -> None:
    """Save one module's state as safetensors and load it into another one."""
    # Copies, because a tensor that shares its memory cannot be saved.
    state = {name: value.detach().clone().contiguous() for name, value in _state(source)}
    save_file(state, path)
    target.load_state_dict(load_file(path))


def _state(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in module.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} is no tensor but {type(value).__name__}")
        yield name, value


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest absolute difference; infinite where one is not a number."""
    return float((one - other).abs().nan_to_num(torch.inf).max())


def tolerance(like: torch.Tensor) -> float:
    """Return what rounding may change in logits of this size."""
    return 1e-4 * max(1.0, float(like.abs().max()))
