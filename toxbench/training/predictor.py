"""Probabilities of rows in eval mode: batches of like lengths, as many tokens as are fast."""

from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from toxbench.errors import PluginError
from toxbench.training.dataloader import Batch, Batcher, sorted_batches
from toxbench.training.device import Device
from toxbench.training.oom import retried
from toxbench.util.arrays import Rows
from toxbench.util.signals import ShouldStop, iterate_until, never_stop

# Padded tokens. More of them at once leave the CPU's caches (0.92 of the time of 4,096).
_EVALUATED_AT_ONCE = {"cpu": 1024, "mps": 8192, "cuda": 65536}
# What the width of a batch is rounded up to: few shapes, and full tiles of its tensor cores.
WIDTH_MULTIPLE = {"cpu": 1, "mps": 8, "cuda": 8}

# Reading probabilities back makes the host wait for a GPU, and not reading them keeps them all.
_BATCHES_AHEAD = 256

Probabilities = npt.NDArray[np.float32]


class Forward(nn.Module):
    """A backbone's module whose output is the checked logits, and nothing around them."""

    def __init__(self, module: nn.Module, label_count: int) -> None:
        super().__init__()
        self.module = module
        self._label_count = label_count

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return float32 logits ``[batch, label]``; raises as `checked_logits`."""
        output: Any = self.module(input_ids=input_ids, attention_mask=attention_mask)
        return checked_logits(output, len(input_ids), self._label_count)


class Predictor:
    """Predicts with one module, whatever was done to it in between."""

    def __init__(
        self, module: nn.Module, label_count: int, max_length: int, device: Device
    ) -> None:
        """Change nothing.

        Args:
            module: on the device; see `toxbench.Backbone.build`.
            label_count: columns of its logits.
            max_length: tokens that no row has more of.
            device: where, and in which precision.
        """
        self.forward = Forward(module, label_count)
        self._module = module
        self._label_count = label_count
        self._max_length = max_length
        self._device = device
        self._at_once = _EVALUATED_AT_ONCE[device.kind]

    def predict(
        self, batcher: Batcher, rows: Rows, should_stop: ShouldStop = never_stop
    ) -> Probabilities:
        """Return probabilities float32 ``[row, label]`` in eval mode, in the order of ``rows``.

        Where memory runs out, fewer comments are looked at at once, from then on.

        Args:
            batcher: of the table.
            rows: in the order of the result.
            is_asked: whether to stop; it is asked before each batch.

        Raises:
            PluginError: the module's logits break the contract or are not finite.
            Stopped: it was asked to.
        """
        probabilities, self._at_once = retried(
            lambda at_once: self._predict(batcher, rows, at_once, should_stop),
            self._at_once,
            self._max_length,
        )
        if not np.isfinite(probabilities).all():
            raise PluginError("the backbone's logits are NaN in eval mode")
        return probabilities

    def logits(self, batch: Batch) -> torch.Tensor:
        """Run the module on some rows; return float32 logits ``[batch, label]``."""
        logits: torch.Tensor = self.forward(batch.input_ids, batch.attention_mask)
        return logits

    def _predict(
        self, batcher: Batcher, rows: Rows, at_once: int, should_stop: ShouldStop
    ) -> Probabilities:
        """Predict batches of at most so many tokens."""
        probabilities = np.empty((len(rows), self._label_count), dtype=np.float32)
        self._module.eval()
        places = list(sorted_batches(rows, batcher.lengths, at_once))
        with torch.inference_mode(), self._device.autocast():
            batches = iterate_until(should_stop, batcher.batches([rows[some] for some in places]))
            for start in range(0, len(places), _BATCHES_AHEAD):
                chunk = places[start : start + _BATCHES_AHEAD]
                found = [self.logits(batch).sigmoid() for batch in islice(batches, len(chunk))]
                probabilities[np.concatenate(chunk)] = torch.cat(found).cpu().numpy()
        return probabilities


def checked_logits(output: Any, row_count: int, label_count: int) -> torch.Tensor:
    """Take the logits out of a module's output as float32.

    Raises:
        PluginError: they are not a float tensor of shape ``[row_count, label_count]``.
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor):
        raise PluginError(f"forward returned {type(logits).__name__}, not a tensor of logits")
    if tuple(logits.shape) != (row_count, label_count):
        raise PluginError(
            f"forward returned logits of shape {list(logits.shape)}, expected "
            f"[{row_count}, {label_count}] (batch, label)"
        )
    if not logits.is_floating_point():
        raise PluginError(f"forward returned logits of type {logits.dtype}, expected floats")
    return logits.float()
