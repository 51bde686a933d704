"""The head of a module: its new layers, and their start from a linear probe.

A probe is a logistic regression for each label on the frozen encoder's features. Fine-tuning that
starts from it changes the pretrained features less than from a random head (Kumar et al. 2022,
arXiv:2202.10054).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from toxbench.errors import PluginError
from toxbench.util.arrays import UNLABELLED, Codes, known_targets

Features = npt.NDArray[np.float32]
# Inverse strength of the L2 penalty. A strong penalty is the best start for fine-tuning: large
# weights would amplify every change of the features.
START_PENALTY = 0.1
PENALTIES = (0.1, 1.0, 10.0, 100.0)  # of a probe that is a candidate
_MAX_ITERATIONS = 1000
_MAX_ROWS = 8000  # to choose among them


@dataclass(frozen=True)
class Head:
    """The new layers of a backbone's module.

    Attributes:
        names: paths of its submodules that are new; those that a module lacks are ignored.
        last: path of the ``nn.Linear`` whose output is the logits; "": the last one of the head.
    """

    names: tuple[str, ...]
    last: str = ""

    def contains(self, parameter: str) -> bool:
        """Whether the parameter of this name belongs to the head."""
        return any(f"{parameter}.".startswith(f"{name}.") for name in self.names)

    def reset(self, module: nn.Module) -> None:
        """Initialize the head's layers at random."""
        for name, layer in module.named_modules():
            if self.contains(name) and hasattr(layer, "reset_parameters"):
                layer.reset_parameters()

    def last_layer(self, module: nn.Module, label_count: int) -> nn.Linear:
        """Return the layer whose output is the logits.

        Raises:
            PluginError: there is no such layer.
        """
        layers = [
            layer
            for name, layer in self._linear_layers(module)
            if layer.out_features == label_count and name == (self.last or name)
        ]
        if not layers:
            raise PluginError(
                "head_init = probe needs an nn.Linear in the head that returns the logits; name it "
                "in Backbone(last_layer=...), or set head_init = random"
            )
        return layers[-1]

    def dense_layers(self, module: nn.Module, last: nn.Linear) -> list[nn.Linear]:
        """Return the other linear layers of the head that keep the number of features."""
        return [
            layer
            for _, layer in self._linear_layers(module)
            if layer is not last and layer.in_features == layer.out_features
        ]

    def _linear_layers(self, module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear) and self.contains(f"{name}.weight"):
                yield name, layer


def set_identity(layer: nn.Linear) -> None:
    """Let a square layer return its input."""
    with torch.no_grad():
        nn.init.eye_(layer.weight)
        if layer.bias is not None:
            layer.bias.zero_()


@contextmanager
def captured_inputs(layer: nn.Linear) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Yield a function from the logits of a forward pass to the layer's input ``[row, feature]``.

    The last layer of a decoder computes logits for every token, and those of one token are
    returned. Then the input is the features of that token.

    The function raises `PluginError` if the logits are not the layer's output.
    """
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(layer: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        calls[:] = [(arguments[0], output)]

    def features(logits: torch.Tensor) -> torch.Tensor:
        values, output = calls[0] if calls else (torch.empty(0), torch.empty(0))
        if values.ndim == 3:
            is_returned = (output.float() == logits[:, None]).all(dim=2)  # [row, token]
            if is_returned.any(dim=1).all():
                values = values[torch.arange(len(values)), is_returned.int().argmax(dim=1)]
        if values.ndim != 2:
            shape = list(values.shape) if calls else "nothing"
            raise PluginError(
                f"the last layer got {shape}, expected [row, feature], or [row, token, feature] "
                "with the logits of one token returned; name the layer that returns the logits in "
                "Backbone(last_layer=...), or set head_init = random"
            )
        return values.float()

    handle = layer.register_forward_hook(keep)
    try:
        yield features
    finally:
        handle.remove()


def set_probe(layer: nn.Linear, features: Features, codes: Codes, penalty: float) -> None:
    """Set a layer to the logistic regression of each label on its features; see `fit_probe`."""
    weight, bias = fit_probe(features, codes, penalty)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))


def fit_probe(
    features: Features, codes: Codes, penalty: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return weights ``[label, feature]`` and biases ``[label]`` of one regression a label.

    Each label uses the rows that are labelled. A label that all or none of them have gets no
    weights, and the log odds of its smoothed prevalence ``(positives + 0.5) / (rows + 1)`` as bias.
    One thread computes, so that the number of threads does not change the result.

    Args:
        features: float32 ``[row, feature]``.
        codes: ``[row, label]``.
        penalty: inverse strength of the L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    weight = np.zeros((codes.shape[1], features.shape[1]))
    positives, negatives = (np.count_nonzero(codes == value, axis=0) for value in (1, 0))
    bias = np.log((positives + 0.5) / (negatives + 0.5))
    with threadpool_limits(1):
        for label in np.flatnonzero((positives > 0) & (negatives > 0)):
            is_complete = positives[label] + negatives[label] == len(codes)
            rows = slice(None) if is_complete else codes[:, label] != UNLABELLED
            regression = LogisticRegression(C=penalty, max_iter=_MAX_ITERATIONS)
            regression.fit(features[rows], codes[rows, label])
            weight[label], bias[label] = regression.coef_[0], regression.intercept_[0]
    return weight, bias


def choose_penalty(features: Features, codes: Codes) -> float:
    """Return the penalty with the smallest log loss on a quarter of the rows that is left out.

    Args:
        features: float32 ``[row, feature]``; at most 8,000 random rows are used.
        codes: ``[row, label]``.
    """
    rows = np.random.default_rng(0).permutation(len(features))[:_MAX_ROWS]
    held_out, rest = np.split(rows, [len(rows) // 4])
    targets, labelled = known_targets(codes[held_out]), codes[held_out] != UNLABELLED

    def loss(penalty: float) -> float:
        weight, bias = fit_probe(features[rest], codes[rest], penalty)
        logits = features[held_out] @ weight.T + bias
        losses = np.logaddexp(0, logits) - targets * logits
        return float(losses.sum(where=labelled))

    return min(PENALTIES, key=loss)
