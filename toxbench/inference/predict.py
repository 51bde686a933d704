"""Prediction and export. The command line calls the same functions."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from toxbench.errors import SettingsError
from toxbench.evaluation.definitions import HALF
from toxbench.inference.input import Block
from toxbench.inference.model import Classifier, load_model
from toxbench.inference.output import Write, columns_of
from toxbench.inference.select import choose_model, thresholds_of
from toxbench.plugin.registry import Registry
from toxbench.store.cells import find_store
from toxbench.store.models import ModelRecord
from toxbench.training.device import choose_device


def predict(
    path: Path | str,
    comments: Sequence[str],
    *,
    backbone: str | None = None,
    thresholds: str = HALF,
    device: str = "auto",
    precision: str = "fp32",
    plugins: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return what a stored model says of some comments.

    Args:
        path: a protocol's folder, or a results folder.
        comments: one or more, none of them blank.
        backbone: whose model; default the one with the highest validation score.
        thresholds: rule of the model's own thresholds: ``0.5``, ``global`` or ``per-label``.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        precision: ``fp32``, which gives the exported model's numbers, or ``bf16`` for speed.
        plugins: as in `toxbench.run`.

    Returns:
        one row for each comment: a column of 0 and 1 for each label, and its probability in a
        column ``<label>_probability``.

    Raises:
        toxbench.errors.SettingsError: there is no such backbone or rule, or a comment is blank.
        toxbench.errors.StorageError: there is no model, or it is damaged.
        toxbench.errors.PluginError: the backbone's plugin is not installed.
    """
    check_comments(comments)
    store = find_store(Path(path))
    folder, record = choose_model(store, backbone)
    own = thresholds_of(record, thresholds)
    where = choose_device(device, precision)
    classifier = Classifier(load_model(folder, record, Registry.discover(plugins)), where)
    probabilities = classifier.probabilities(comments)
    block = Block("", "text", [""] * len(comments), list(comments))  # no label has that name
    columns = columns_of(block, probabilities, record.labels, own, with_text=False)
    return pd.DataFrame(columns).drop(columns="")


def check_comments(comments: Sequence[str]) -> None:
    """Refuse comments that are none; raises `SettingsError`."""
    if isinstance(comments, str) or not all(isinstance(comment, str) for comment in comments):
        raise SettingsError("comments are a list of texts")
    for number, comment in enumerate(comments, start=1):
        if not comment.strip():
            raise SettingsError(f"comment {number} is empty; leave it out")
        try:
            comment.encode("utf-8")
        except UnicodeEncodeError as error:
            raise SettingsError(f"comment {number} is no UTF-8 text; mend it") from error


def predict_blocks(
    classifier: Classifier,
    record: ModelRecord,
    thresholds: Sequence[float],
    blocks: Iterable[Block],
    write: Write,
    *,
    with_text: bool = False,
    on_block: Callable[[int], None] = lambda count: None,
) -> int:
    """Predict comments block by block; return how many there were.

    Args:
        classifier: of the model.
        record: of the model.
        thresholds: of each label.
        blocks: of comments.
        write: is given each block's columns.
        with_text: the comments are one of them.
        on_block: is told how many comments were done just now.
    """
    total = 0
    for block in blocks:
        probabilities = classifier.probabilities(block.texts)
        write(columns_of(block, probabilities, record.labels, thresholds, with_text))
        on_block(len(block.texts))
        total += len(block.texts)
    return total
