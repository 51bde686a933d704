"""Rows to batches: like lengths together, nothing padded further than its batch needs."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from toxbench.data.split import Rows
from toxbench.data.tokens import Tokens

_BATCHES_IN_A_BUCKET = 50


class Batcher:
    """Token ids on the device once; batches are gathered there without waiting for it."""

    def __init__(self, tokens: Tokens, device: torch.device, pad_to: int | None = None) -> None:
        """Move the tokens to the device.

        Args:
            tokens: of all rows.
            device: where batches are needed.
            pad_to: tokens in every batch; None: as many as its longest row has.
        """
        self.lengths = tokens.lengths
        self._pad_id = tokens.pad_id
        self._pad_to = pad_to
        self._device = device
        self._ids = torch.from_numpy(tokens.ids).to(device)
        self._offsets = torch.from_numpy(tokens.offsets).to(device)

    def batch(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``input_ids`` and ``attention_mask``, both int64 ``[batch, token]``."""
        width = self._pad_to or int(self.lengths[rows].max())
        index = torch.from_numpy(rows).to(self._device)
        starts, ends = self._offsets[index], self._offsets[index + 1]
        places = starts[:, None] + torch.arange(width, device=self._device)
        mask = places < ends[:, None]
        ids = self._ids[places.clamp_(max=len(self._ids) - 1)].long()
        return ids.masked_fill_(~mask, self._pad_id), mask.long()


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
