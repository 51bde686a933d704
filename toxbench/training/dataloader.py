"""Batches of token ids, masks and targets; rows of similar length share a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from toxbench.data.tokenization import Tokens
from toxbench.util.arrays import Codes, Rows

_BATCHES_PER_BUCKET = 50
_IDS_PER_CHUNK = 1 << 24  # ids that are counted at once
_MAX_GPU_SHARE = 0.25  # of a GPU's free memory; a larger table stays in the host's memory


@dataclass(frozen=True)
class Batch:
    """Rows of the table, on the device.

    Attributes:
        input_ids: int64 ``[window, token]``.
        attention_mask: int64 ``[window, token]``, 1 for tokens and 0 for padding.
        targets: float32, ``[batch, label]``: 0, 1, or `UNLABELLED`.
        row_of_window: position of each window's row in the batch, int64 ``[window]``; None if
            every row has one window.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    targets: torch.Tensor
    row_of_window: torch.Tensor | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.targets)

    def pool(
        self, values: torch.Tensor, reduction: Literal["amax", "mean"] = "amax"
    ) -> torch.Tensor:
        """Reduce values of windows ``[window, column]`` to values of rows ``[batch, column]``."""
        if self.row_of_window is None:
            return values
        index = self.row_of_window[:, None].expand_as(values)
        pooled = values.new_zeros(len(self), values.shape[1])
        return pooled.scatter_reduce(0, index, values, reduction, include_self=False)


class Batcher:
    """Gathers batches from token ids and targets that are copied to the device once.

    On a CPU the ids are not copied: those of a cached table stay on disk until they are used.

    Attributes:
        lengths: tokens of each row in a batch, int64 ``[row]``: its windows, padded to the first.
        window_counts: number of windows of each row, int64 ``[row]``.
    """

    def __init__(
        self,
        tokens: Tokens,
        codes: Codes,
        device: torch.device,
        pad_to: int | None = None,
        multiple: int = 1,
    ) -> None:
        """Copy tokens and targets to the device.

        Args:
            tokens: of all rows.
            codes: of all rows, ``[row, label]``.
            device: device of the batches.
            pad_to: tokens in every window of a batch; None: as many as in its longest window.
            multiple: if ``pad_to`` is None, the width is rounded up to a multiple of this, for
                fewer shapes.
        """
        self._windows = tokens.windows
        self._window_lengths = np.diff(tokens.offsets)
        self.window_counts = np.diff(tokens.windows)
        self.lengths = self.window_counts * self._window_lengths[tokens.windows[:-1]]
        self._pad_id = tokens.pad_id
        self._pad_to = pad_to
        self._multiple = multiple
        self._device = device
        self._source = device if _fits(tokens, codes, device) else torch.device("cpu")
        self._ids = torch.from_numpy(tokens.ids).to(self._source)
        self._offsets = torch.from_numpy(tokens.offsets).to(self._source)
        self._targets = torch.tensor(codes, device=self._source)

    def unique_ids(self) -> torch.Tensor:
        """Return the sorted ids that batches can contain, padding included; int64 ``[id]``."""
        starts = range(0, len(self._ids), _IDS_PER_CHUNK)
        chunks = (self._ids[start : start + _IDS_PER_CHUNK] for start in starts)
        ids = [chunk.bincount().nonzero()[:, 0] for chunk in chunks]
        padding = torch.tensor([self._pad_id], device=self._source)
        return torch.cat([*ids, padding]).bincount().nonzero()[:, 0].to(self._device)

    def batches(self, groups: Sequence[Rows]) -> Iterator[Batch]:
        """Yield one batch for each group of rows.

        The indices of all groups are copied to the device at once and nothing is copied back, so
        the host does not wait for a GPU.
        """
        rows = np.concatenate([*groups, np.empty(0, np.int64)])
        counts = self.window_counts[rows]
        ends = np.concatenate([[0], counts.cumsum()])  # of rows, among the windows of all groups
        windows = np.arange(ends[-1]) + (self._windows[rows] - ends[:-1]).repeat(counts)
        row_indices, row_of_window, window_indices = (
            torch.from_numpy(array).to(self._source)
            for array in (rows, np.arange(len(rows)).repeat(counts), windows)
        )
        for start, end in pairwise(np.cumsum([0, *map(len, groups)])):
            part = slice(ends[start], ends[end])
            longest = int(self._window_lengths[windows[part]].max())
            width = self._pad_to or -(-longest // self._multiple) * self._multiple
            batch = self._batch(row_indices[start:end], window_indices[part], width)
            if counts[start:end].max() > 1:
                row_in_batch = self._to_device(row_of_window[part] - start)
                batch = replace(batch, row_of_window=row_in_batch)
            yield batch

    def _batch(self, rows: torch.Tensor, windows: torch.Tensor, width: int) -> Batch:
        """Return the batch of rows ``[batch]`` and their windows, padded to ``width`` tokens."""
        starts, ends = self._offsets[windows], self._offsets[windows + 1]
        positions = starts[:, None] + torch.arange(width, device=self._source)
        mask = positions < ends[:, None]
        ids = self._ids[positions.clamp_(max=len(self._ids) - 1)].long()
        ids.masked_fill_(~mask, self._pad_id)
        targets = self._targets[rows].float()
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


def split_batch(
    rows: Rows, window_counts: npt.NDArray[np.int64], max_windows: int
) -> Iterator[Rows]:
    """Yield the parts of a batch for separate passes, in their order.

    Args:
        rows: indices of the rows, ``[row]``.
        window_counts: number of windows of every row of the table.
        max_windows: most windows of a part that has more than one row.
    """
    ends = np.cumsum(window_counts[rows])
    start = windows = 0
    while start < len(rows):
        end = max(start + 1, int(np.searchsorted(ends, windows + max_windows, side="right")))
        yield rows[start:end]
        start, windows = end, ends[end - 1]


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


def _fits(tokens: Tokens, codes: Codes, device: torch.device) -> bool:
    """Whether the table may be copied to the device."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return tokens.ids.nbytes + tokens.offsets.nbytes + codes.nbytes < _MAX_GPU_SHARE * free


def _chunks(rows: Rows, size: int) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
