"""Batches of token ids, masks and targets; rows of similar length share a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from toxbench.data.tokenization import Tokens
from toxbench.util.arrays import Rows, Targets

_BATCHES_PER_BUCKET = 50
_IDS_PER_CHUNK = 1 << 24  # ids that are counted at once
_MAX_GPU_SHARE = 0.25  # of a GPU's free memory; a larger table stays in the host's memory


@dataclass(frozen=True)
class Batch:
    """Rows of the table, on the device.

    Attributes:
        input_ids: int64 ``[batch, token]``.
        attention_mask: int64 ``[batch, token]``, 1 for tokens and 0 for padding.
        targets: float32 0/1, ``[batch, label]``.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.input_ids)


class Batcher:
    """Gathers batches from token ids and targets that are copied to the device once.

    On a CPU the ids are not copied: those of a cached table stay on disk until they are used.
    """

    def __init__(
        self,
        tokens: Tokens,
        targets: Targets,
        device: torch.device,
        pad_to: int | None = None,
        multiple: int = 1,
    ) -> None:
        """Copy tokens and targets to the device.

        Args:
            tokens: of all rows.
            targets: 0/1, ``[row, label]``, of all rows.
            device: device of the batches.
            pad_to: tokens in every row of a batch; None: as many as in the batch's longest row.
            multiple: if ``pad_to`` is None, the width is rounded up to a multiple of this, for
                fewer shapes.
        """
        self.lengths = tokens.lengths
        self._pad_id = tokens.pad_id
        self._pad_to = pad_to
        self._multiple = multiple
        self._device = device
        self._source = device if _fits(tokens, targets, device) else torch.device("cpu")
        self._ids = torch.from_numpy(tokens.ids).to(self._source)
        self._offsets = torch.from_numpy(tokens.offsets).to(self._source)
        self._targets = torch.tensor(targets, device=self._source)

    def unique_ids(self) -> torch.Tensor:
        """Return the sorted ids that batches can contain, padding included; int64 ``[id]``."""
        starts = range(0, len(self._ids), _IDS_PER_CHUNK)
        chunks = (self._ids[start : start + _IDS_PER_CHUNK] for start in starts)
        ids = [chunk.bincount().nonzero()[:, 0] for chunk in chunks]
        padding = torch.tensor([self._pad_id], device=self._source)
        return torch.cat([*ids, padding]).bincount().nonzero()[:, 0].to(self._device)

    def batches(self, groups: Sequence[Rows]) -> Iterator[Batch]:
        """Yield one batch for each group of rows.

        The row indices of all groups are copied to the device at once and nothing is copied back,
        so the host does not wait for a GPU.
        """
        ends = np.cumsum([0, *map(len, groups)])
        indices = torch.from_numpy(np.concatenate([*groups, np.empty(0, np.int64)]))
        indices = indices.to(self._source)
        for rows, end in zip(groups, ends[1:], strict=True):
            longest = int(self.lengths[rows].max())
            width = self._pad_to or -(-longest // self._multiple) * self._multiple
            yield self._batch(indices[end - len(rows) : end], width)

    def _batch(self, indices: torch.Tensor, width: int) -> Batch:
        """Return the batch of rows ``[batch]``, padded to ``width`` tokens."""
        starts, ends = self._offsets[indices], self._offsets[indices + 1]
        positions = starts[:, None] + torch.arange(width, device=self._source)
        mask = positions < ends[:, None]
        ids = self._ids[positions.clamp_(max=len(self._ids) - 1)].long()
        ids.masked_fill_(~mask, self._pad_id)
        targets = self._targets[indices].float()
        return Batch(self._to_device(ids), self._to_device(mask.long()), self._to_device(targets))

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to the device if it is not there; the host does not wait for the copy."""
        if self._source == self._device:
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


def epoch_batches(
    rows: Rows,
    lengths: npt.NDArray[np.int64],
    batch_size: int,
    rng: np.random.Generator,
    bucket: bool,
) -> list[Rows]:
    """Return one epoch's batches in random order; every row is in exactly one.

    Args:
        rows: indices of the rows, ``[row]``.
        lengths: tokens of every row of the table.
        batch_size: rows in a batch; the last one may have fewer.
        rng: draws the order.
        bucket: sort random buckets of 50 batches by length. A batch then has rows of similar
            length, and its rows still differ from epoch to epoch.
    """
    shuffled = rng.permutation(rows)
    if not bucket:
        return list(_chunks(shuffled, batch_size))
    batches: list[Rows] = []
    for chunk in _chunks(shuffled, batch_size * _BATCHES_PER_BUCKET):
        by_length = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches.extend(_chunks(by_length, batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_batches(
    rows: Rows, lengths: npt.NDArray[np.int64], max_tokens: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches of positions within ``rows``, longest rows first.

    A batch has at most ``max_tokens`` tokens, padding included, or a single row. The longest rows
    come first so that a batch that does not fit into memory fails at the start.
    """
    order = np.argsort(-lengths[rows], kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_tokens // int(lengths[rows[order[start]]]))
        yield order[start : start + size]
        start += size


def _fits(tokens: Tokens, targets: Targets, device: torch.device) -> bool:
    """Whether the table may be copied to the device."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return tokens.ids.nbytes + tokens.offsets.nbytes + targets.nbytes < _MAX_GPU_SHARE * free


def _chunks(rows: Rows, size: int) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
