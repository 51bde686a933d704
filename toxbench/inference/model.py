"""A stored model in memory, built by the backbone's plugin, and the labels that it predicts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_model as load_tensors
from torch import nn

from toxbench.data.tokenization import tokenise_uncached
from toxbench.errors import PluginError, SettingsError
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.ensembles import average_probabilities
from toxbench.inference.select import choose_models
from toxbench.inference.tables import Block, WriteColumns, prediction_columns
from toxbench.plugin.contracts import Backbone
from toxbench.plugin.loading import quiet_transformers
from toxbench.plugin.registry import Registry
from toxbench.records import Calibration
from toxbench.store.cells import find_store
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


def predict(
    path: Path | str,
    comments: Sequence[str],
    *,
    backbone: str | None = None,
    average: bool = False,
    thresholds: str = HALF,
    device: str = "auto",
    precision: str = "fp32",
    plugins: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Predict the labels of comments with a stored model.

    Args:
        path: a protocol's folder, or a results folder.
        comments: the texts, none of them blank.
        backbone: name of a backbone; by default that of the model with the highest validation
            score.
        average: use the mean probabilities of the models of all seeds (``save_models="all"``).
        thresholds: rule of the model's thresholds: ``0.5``, ``global``, ``accuracy`` or
            ``per-label``.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        precision: ``fp32``, which returns the same numbers as the exported model, or ``bf16``,
            which is faster.
        plugins: as in `toxbench.run`.

    Returns:
        a table with one row for each comment and two columns for each label: ``<label>``, 0 or 1,
        and ``<label>_probability``, which is calibrated.

    Raises:
        toxbench.errors.SettingsError: the backbone or rule does not exist, or a comment is blank.
        toxbench.errors.StorageError: no model is stored, or it is damaged.
        toxbench.errors.PluginError: the backbone's plugin is not installed.
    """
    check_comments(comments)
    chosen = choose_models(find_store(Path(path)), backbone, average)
    label_thresholds = chosen.rule_thresholds(thresholds)
    registry = Registry.with_item("backbones", chosen.record.key.candidate, plugins)
    classifier = load_classifier(chosen.models, registry, choose_device(device, precision))
    probabilities = classifier.predict_probabilities(comments)
    # The empty name of the id column: no label has it.
    block = Block("", "text", [""] * len(comments), list(comments))
    columns = prediction_columns(
        block, probabilities, chosen.record.labels, label_thresholds, with_text=False
    )
    return pd.DataFrame(columns).drop(columns="")


def check_comments(comments: Sequence[str]) -> None:
    """Check that comments are a list of texts that are not blank.

    Raises:
        SettingsError: they are not; the message has the number of the comment, not its text.
    """
    if isinstance(comments, str) or not all(isinstance(comment, str) for comment in comments):
        raise SettingsError("comments must be a list of texts")
    for number, comment in enumerate(comments, start=1):
        if not comment.strip():
            raise SettingsError(f"comment {number} is empty; leave it out")
        try:
            comment.encode("utf-8")
        except UnicodeEncodeError as error:
            raise SettingsError(f"comment {number} is not valid UTF-8 text; correct it") from error


def predict_blocks(
    classifier: TextClassifier,
    record: ModelRecord,
    thresholds: Sequence[float],
    blocks: Iterable[Block],
    write: WriteColumns,
    *,
    with_text: bool = False,
    on_block: Callable[[int], None] = lambda count: None,
) -> int:
    """Predict comments block by block; return the number of comments.

    Calls ``write`` with the columns of each block, and ``on_block`` with its number of comments.
    """
    total = 0
    for block in blocks:
        probabilities = classifier.predict_probabilities(block.texts)
        write(prediction_columns(block, probabilities, record.labels, thresholds, with_text))
        on_block(len(block.texts))
        total += len(block.texts)
    return total
