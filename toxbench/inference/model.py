"""A stored model in memory: its module and tokenizer, built by the backbone's plugin."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from safetensors.torch import load_model as load_tensors
from torch import nn

from toxbench.data.tokenization import tokenise_uncached
from toxbench.errors import PluginError, SettingsError
from toxbench.evaluation.ensembles import average_probabilities
from toxbench.plugin.contracts import Backbone
from toxbench.plugin.loading import quiet_transformers
from toxbench.plugin.registry import Registry
from toxbench.records import Calibration
from toxbench.store.models import WEIGHTS, ModelRecord, check_model
from toxbench.training.dataloader import Batcher
from toxbench.training.device import Device, choose_device, seeded
from toxbench.training.predictor import WIDTH_MULTIPLE, Forward, Predictor
from toxbench.util.arrays import Probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Model:
    """A trained module in eval mode on the CPU, with its record, backbone and tokenizer."""

    record: ModelRecord
    backbone: Backbone
    module: nn.Module
    tokenizer: "PreTrainedTokenizerBase"


class CalibratedForward(Forward):
    """Wraps a backbone's module; the output is the calibrated logits."""

    def __init__(self, module: nn.Module, label_count: int, calibration: Calibration) -> None:
        super().__init__(module, label_count)
        self._calibration = calibration

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return ``logits / temperature + shift``, float32 ``[batch, label]``."""
        logits = super().forward(input_ids, attention_mask)
        return logits / self._calibration.temperature + self._calibration.shift


class TextClassifier(Protocol):
    """Computes the calibrated probability of each label of a comment."""

    def predict_probabilities(self, texts: Sequence[str]) -> Probabilities:
        """Return probabilities, float32 ``[comment, label]``."""
        ...


class Classifier:
    """A `TextClassifier` of one model."""

    def __init__(self, model: Model, device: Device) -> None:
        """Move the module to the device where it computes."""
        self._tokenizer = model.tokenizer
        self._record = model.record
        self._device = device
        label_count = len(model.record.labels)
        module = CalibratedForward(model.module, label_count, model.record.calibration)
        self._predictor = Predictor(
            module.to(device.torch), label_count, model.record.max_length, device
        )

    def predict_probabilities(self, texts: Sequence[str]) -> Probabilities:
        """Return probabilities, float32 ``[comment, label]``.

        Raises:
            PluginError: the module breaks its contract.
        """
        label_count = len(self._record.labels)
        if not texts:
            return np.empty((0, label_count), dtype=np.float32)
        limit, long_text = self._record.max_length, self._record.long_text
        tokens = tokenise_uncached(self._tokenizer, texts, limit, long_text)
        unused_targets = np.zeros((len(texts), label_count), dtype=np.uint8)
        multiple = WIDTH_MULTIPLE[self._device.kind]
        batcher = Batcher(tokens, unused_targets, self._device.torch, multiple=multiple)
        return self._predictor.predict(batcher, np.arange(len(texts), dtype=np.int64))


class AveragedClassifier:
    """A `TextClassifier` that averages the probabilities of classifiers with the same labels."""

    def __init__(self, classifiers: Sequence[TextClassifier]) -> None:
        self._classifiers = classifiers

    def predict_probabilities(self, texts: Sequence[str]) -> Probabilities:
        """Return probabilities, float32 ``[comment, label]``; raises as `Classifier`."""
        return average_probabilities([c.predict_probabilities(texts) for c in self._classifiers])


def load_classifier(
    models: Sequence[tuple[Path, ModelRecord]], registry: Registry, device: Device
) -> TextClassifier:
    """Load a stored model, or the average of several; raises as `load_model`."""
    classifiers = [Classifier(load_model(*model, registry), device) for model in models]
    return classifiers[0] if len(classifiers) == 1 else AveragedClassifier(classifiers)


def load_model(folder: Path, record: ModelRecord, registry: Registry) -> Model:
    """Load a stored model after comparing each of its files with its checksum.

    Raises:
        DamagedError: a file is missing or damaged.
        PluginError: the backbone's plugin is not installed, or cannot build the module.
    """
    check_model(folder, record)
    backbone = _find_backbone(record, registry)
    cpu = choose_device("cpu", "fp32")
    try:
        with quiet_transformers(), seeded(0, cpu):
            module = backbone.build(folder, len(record.labels))
            load_tensors(module, folder / WEIGHTS)
            tokenizer = backbone.tokenizer(folder)
    except Exception as error:
        raise PluginError(
            f"the model {folder} was trained with {record.distribution}, and its backbone "
            f"{record.key.candidate} cannot load it now: {_one_line(error)}; install that version "
            "again"
        ) from error
    return Model(record, backbone, module.eval(), tokenizer)


def _find_backbone(record: ModelRecord, registry: Registry) -> Backbone:
    """Return a model's backbone, which must be of the same distribution."""
    name, distribution = record.key.candidate, record.distribution
    try:
        registered = registry.stored_backbone(name, distribution)
    except SettingsError as error:
        raise PluginError(
            f"the model {record.key.stem} needs the backbone {name!r} of {distribution}, which is "
            f"not installed or not among --plugins; pip install {distribution.split()[0]}"
        ) from error
    if registered.distribution.split()[0] != distribution.split()[0]:
        raise PluginError(
            f"the model {record.key.stem} needs the backbone {name!r} of {distribution}, but the "
            f"installed one is of {registered.distribution}; install the former and uninstall the "
            "latter"
        )
    return registered.item


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
