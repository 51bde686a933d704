"""Rows to batches: like lengths together, nothing padded further than its batch needs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from toxbench.data.tokenization import Tokens
from toxbench.util.arrays import Rows, Targets

_BATCHES_IN_A_BUCKET = 50
_IDS_AT_ONCE = 1 << 24
_SHARE = 0.25  # of a GPU's free memory that a table may take; a larger one stays with the host


@dataclass(frozen=True)
class Batch:
    """Some rows on the device.

    Attributes:
        input_ids: int64 ``[batch, token]``.
        attention_mask: int64 ``[batch, token]``, 1 where a token is.
        targets: float32 0/1, ``[batch, label]``.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.input_ids)


class Batcher:
    """Token ids and targets on the device once; batches are gathered there.

    On a CPU the ids are not copied: those of a cached table stay on the disk until they are used.
    """

    def __init__(
        self,
        tokens: Tokens,
        targets: Targets,
        device: torch.device,
        pad_to: int | None = None,
        multiple: int = 1,
    ) -> None:
        """Move tokens and targets to the device.

        Args:
            tokens: of all rows.
            targets: 0/1, ``[row, label]``, of all rows.
            device: where batches are needed.
            pad_to: tokens in every batch; None: as many as its longest row has.
            multiple: what that is rounded up to a multiple of, for fewer shapes.
        """
        self.lengths = tokens.lengths
        self._pad_id = tokens.pad_id
        self._pad_to = pad_to
        self._multiple = multiple
        self._device = device
        # Where batches are gathered.
        self._home = device if _fits(tokens, targets, device) else torch.device("cpu")
        self._ids = torch.from_numpy(tokens.ids).to(self._home)
        self._offsets = torch.from_numpy(tokens.offsets).to(self._home)
        self._targets = torch.tensor(targets, device=self._home)

    def every_id(self) -> torch.Tensor:
        """Return each id that batches can hold once, padding included."""
        some = (self._ids[i : i + _IDS_AT_ONCE] for i in range(0, len(self._ids), _IDS_AT_ONCE))
        found = [ids.bincount().nonzero()[:, 0] for ids in some]
        pad = torch.tensor([self._pad_id], device=self._home)
        return torch.cat([*found, pad]).bincount().nonzero()[:, 0].to(self._device)

    def batches(self, groups: Sequence[Rows]) -> Iterator[Batch]:
        """Yield one batch for each group of rows.

        Which rows they are goes to the device once for all groups, and nothing is read back: the
        host runs ahead of a GPU.
        """
        ends = np.cumsum([0, *map(len, groups)])
        everything = torch.from_numpy(np.concatenate([*groups, np.empty(0, np.int64)]))
        everything = everything.to(self._home)
        for rows, end in zip(groups, ends[1:], strict=True):
            longest = int(self.lengths[rows].max())
            width = self._pad_to or -(-longest // self._multiple) * self._multiple
            yield self._batch(everything[end - len(rows) : end], width)

    def _batch(self, index: torch.Tensor, width: int) -> Batch:
        starts, ends = self._offsets[index], self._offsets[index + 1]
        places = starts[:, None] + torch.arange(width, device=self._home)
        mask = places < ends[:, None]
        ids = self._ids[places.clamp_(max=len(self._ids) - 1)].long()
        ids.masked_fill_(~mask, self._pad_id)
        targets = self._targets[index].float()
        return Batch(self._sent(ids), self._sent(mask.long()), self._sent(targets))

    def _sent(self, gathered: torch.Tensor) -> torch.Tensor:
        """Return it on the device; from the host it goes there while the host runs ahead."""
        if self._home == self._device:
            return gathered
        return gathered.pin_memory().to(self._device, non_blocking=True)


def _fits(tokens: Tokens, targets: Targets, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return tokens.ids.nbytes + tokens.offsets.nbytes + targets.nbytes < _SHARE * free


def epoch_batches(
    rows: Rows,
    lengths: npt.NDArray[np.int64],
    batch_size: int,
    rng: np.random.Generator,
    bucket: bool,
) -> list[Rows]:
    """Return one epoch's batches in random order; every row is in exactly one.

    Buckets of 50 batches are drawn at random and sorted by length inside, so that a batch holds
    like lengths while its company changes from epoch to epoch.
    """
    shuffled = rng.permutation(rows)
    if not bucket:
        return list(_cut(shuffled, batch_size))
    size = batch_size * _BATCHES_IN_A_BUCKET
    batches: list[Rows] = []
    for some in _cut(shuffled, size):
        batches.extend(_cut(some[np.argsort(lengths[some], kind="stable")], batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_batches(
    rows: Rows, lengths: npt.NDArray[np.int64], tokens_at_once: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield positions within ``rows``, longest first, a bounded number of padded tokens at once.

    The longest come first so that a batch that does not fit into memory fails at the start.
    """
    order = np.argsort(-lengths[rows], kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens_at_once // int(lengths[rows[order[start]]]))
        yield order[start : start + size]
        start += size


def _cut(rows: Rows, size: int) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
