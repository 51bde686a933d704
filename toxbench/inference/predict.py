"""Prediction with a stored model; the command line calls the same functions."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from toxbench.errors import SettingsError
from toxbench.evaluation.definitions import HALF
from toxbench.inference.input import Block
from toxbench.inference.model import TextClassifier, load_classifier
from toxbench.inference.output import WriteColumns, prediction_columns
from toxbench.inference.select import choose_models
from toxbench.plugin.registry import Registry
from toxbench.store.cells import find_store
from toxbench.store.models import ModelRecord
from toxbench.training.device import choose_device


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
