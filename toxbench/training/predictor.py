"""Probabilities of rows in eval mode, in batches of similar length."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from toxbench.errors import PluginError
from toxbench.training.dataloader import Batch, Batcher, sorted_batches
from toxbench.training.device import Device, retry_on_oom
from toxbench.training.head import captured_inputs
from toxbench.training.process_group import Values
from toxbench.util.arrays import Probabilities, Rows
from toxbench.util.processes import ShouldStop, iterate_until, never_stop

# Tokens in a batch, padding included. On a CPU, 1,024 fit into its caches and take 0.92 of the time
# of 4,096.
_MAX_BATCH_TOKENS = {"cpu": 1024, "mps": 8192, "cuda": 65536}
# The width of a batch is rounded up to a multiple of this: few shapes, full tiles of tensor cores.
WIDTH_MULTIPLE = {"cpu": 1, "mps": 8, "cuda": 8}
# Batches whose probabilities are copied from the device together. Each copy makes the host wait for
# a GPU; without any copy, all probabilities would stay in the GPU's memory.
_BATCHES_PER_COPY = 256


class Forward(nn.Module):
    """Wraps a backbone's module; the output is the checked logits alone."""

    def __init__(self, module: nn.Module, label_count: int) -> None:
        super().__init__()
        self.module = module
        self._label_count = label_count

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return float32 logits ``[batch, label]``; raises as `checked_logits`."""
        output: Any = self.module(input_ids=input_ids, attention_mask=attention_mask)
        return checked_logits(output, input_ids.shape[0], self._label_count)


class Predictor:
    """Predicts with one module, in the state that it has at each call."""

    def __init__(
        self, module: nn.Module, label_count: int, max_length: int, device: Device
    ) -> None:
        """Wrap a module without changing it.

        Args:
            module: on the device; see `toxbench.Backbone.build`.
            label_count: number of labels, the columns of its logits.
            max_length: most tokens in a window of a row.
            device: device and precision.
        """
        self.forward = Forward(module, label_count)
        self._module = module
        self._label_count = label_count
        self._max_length = max_length
        self._device = device
        self._batch_tokens = _MAX_BATCH_TOKENS[device.kind]

    def predict(
        self, batcher: Batcher, rows: Rows, should_stop: ShouldStop = never_stop
    ) -> Probabilities:
        """Return probabilities float32 ``[row, label]`` in eval mode, in the order of ``rows``.

        If memory runs out, this and all later calls use smaller batches.

        Args:
            batcher: makes batches of the table.
            rows: indices of rows, ``[row]``.
            should_stop: called before each batch; whether to stop.

        Raises:
            PluginError: the module's logits break the contract or are not finite.
            StopRequested: ``should_stop`` returned True.
        """
        probabilities = self._compute(
            batcher,
            rows,
            lambda batch: self.logits(batch).sigmoid(),
            self._label_count,
            should_stop,
        )
        if not np.isfinite(probabilities).all():
            raise PluginError("the backbone's logits are NaN in eval mode")
        return probabilities

    def features(
        self, batcher: Batcher, rows: Rows, layer: nn.Linear, should_stop: ShouldStop = never_stop
    ) -> Values:
        """Return the inputs of a layer, float32 ``[row, feature]``; otherwise like `predict`.

        Those of a row with several windows are the mean over its windows.
        """
        with captured_inputs(layer) as latest:

            def inputs(batch: Batch) -> torch.Tensor:
                return batch.pool(latest(self._window_logits(batch)), "mean")

            values = self._compute(batcher, rows, inputs, layer.in_features, should_stop)
        if not np.isfinite(values).all():
            raise PluginError("the backbone's features are NaN in eval mode")
        return values

    def logits(self, batch: Batch) -> torch.Tensor:
        """Run the module on a batch; return float32 logits ``[batch, label]``.

        The logit of a row is the largest of its windows.
        """
        return batch.pool(self._window_logits(batch))

    def _window_logits(self, batch: Batch) -> torch.Tensor:
        """Return float32 logits ``[window, label]``."""
        logits: torch.Tensor = self.forward(batch.input_ids, batch.attention_mask)
        return logits

    def _compute(
        self,
        batcher: Batcher,
        rows: Rows,
        function: Callable[[Batch], torch.Tensor],
        columns: int,
        should_stop: ShouldStop,
    ) -> Values:
        """Return the function's values, float32 ``[row, column]``, in the order of ``rows``."""
        values, self._batch_tokens = retry_on_oom(
            lambda batch_tokens: self._compute_batches(
                batcher, rows, batch_tokens, function, columns, should_stop
            ),
            self._batch_tokens,
            self._max_length,
        )
        return values

    def _compute_batches(
        self,
        batcher: Batcher,
        rows: Rows,
        batch_tokens: int,
        function: Callable[[Batch], torch.Tensor],
        columns: int,
        should_stop: ShouldStop,
    ) -> Values:
        """Compute in batches of at most ``batch_tokens`` tokens."""
        values = np.empty((len(rows), columns), dtype=np.float32)
        self._module.eval()
        groups = list(sorted_batches(rows, batcher.lengths, batch_tokens))
        with torch.inference_mode(), self._device.autocast():
            batches = iterate_until(
                should_stop, batcher.batches([rows[positions] for positions in groups])
            )
            for start in range(0, len(groups), _BATCHES_PER_COPY):
                chunk = groups[start : start + _BATCHES_PER_COPY]
                outputs = [function(batch) for batch in islice(batches, len(chunk))]
                values[np.concatenate(chunk)] = torch.cat(outputs).cpu().numpy()
        return values


def checked_logits(output: Any, row_count: int, label_count: int) -> torch.Tensor:
    """Return a module's output, or its attribute ``logits``, as float32.

    Raises:
        PluginError: the logits are not a float tensor of shape ``[row_count, label_count]``.
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
