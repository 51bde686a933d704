"""Export of a stored model as a Hugging Face folder, and scores of one model in several formats."""

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from toxbench.data.table import TextDataset
from toxbench.errors import PluginError, SettingsError
from toxbench.evaluation.bootstrap import (
    MIN_EFFECTIVE_UNITS,
    BootstrapScores,
    SampleCounts,
    Units,
    bootstrap,
    sampling_units,
    sum_by_unit,
)
from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.row_counts import row_counts
from toxbench.evaluation.significance import compare_all
from toxbench.evaluation.thresholds import predict
from toxbench.inference.model import CalibratedForward, Model, TextClassifier
from toxbench.plugin.contracts import Table
from toxbench.plugin.loading import quiet_transformers
from toxbench.records import Calibration
from toxbench.report.tables import create_table
from toxbench.store.cells import CellStore
from toxbench.store.models import CARD, ModelRecord
from toxbench.util.arrays import Codes, hide_unlabelled, known_targets
from toxbench.util.atomic import atomic_folder

TOLERANCE = 1e-5  # largest difference of a logit; relative for logits above 1
PHRASES = (
    "Thank you for this.",
    "I do not agree with anything that was written here, and I will explain why.",
    "1,000 comments? No one reads them! :-)",
    "again and again and " * 200,
)

_CARD_USAGE = """
## With transformers

```python
from transformers import pipeline

classify = pipeline("text-classification", "FOLDER", top_k=None)
classify("some comment", truncation=True)
```

{truncation}

The scores are calibrated probabilities. `thresholds.json` has the thresholds of each rule for them.
"""
ROUNDS = 5
TIMED_ROWS = 500


def check_target(target: Path) -> None:
    """Check that a path can become the exported folder: it is absent or an empty folder.

    Raises:
        SettingsError: it is a link, a file or a folder with content.
    """
    if target.is_symlink():
        raise SettingsError(f"{target} is a symbolic link; name a folder")
    if target.exists() and not target.is_dir():
        raise SettingsError(f"{target} exists and is not a folder; name another")
    if target.is_dir() and any(target.iterdir()):
        raise SettingsError(f"{target} is not empty; remove it or name another folder")


def export(model: Model, source: Path, target: Path) -> None:
    """Write a model in the format of transformers and compare it with the stored model.

    The exported weights compute calibrated logits. The folder ``target`` is written atomically: it
    appears complete and checked, or not at all. Its model card is that of ``source``, the stored
    model's folder.

    Raises:
        SettingsError: as `check_target`.
        PluginError: no class of transformers computes the same logits.
        StorageError: the disk is full or the folder cannot be written.
    """
    check_target(target)
    with quiet_transformers(), atomic_folder(target) as folder:
        exported = model.backbone.exported(model.module)
        if not isinstance(exported, nn.Module) or not hasattr(exported, "save_pretrained"):
            raise PluginError(
                f"exported() returned {type(exported).__name__} instead of a PreTrainedModel"
            )
        exported = _with_calibration(exported, len(model.record.labels), model.record.calibration)
        _set_labels(exported.config, model.record.labels)
        exported.save_pretrained(folder)
        write_tokenizer(model, folder)
        card = (source / CARD).read_text(encoding="utf-8")
        usage = _CARD_USAGE.format(truncation=truncation_note(model.record))
        (folder / CARD).write_text(card + usage, encoding="utf-8")
        thresholds = json.dumps(label_thresholds(model.record), indent=2)
        (folder / "thresholds.json").write_text(thresholds, encoding="utf-8")
        _check_exported(model, folder)


def truncation_note(record: ModelRecord) -> str:
    """Return what an exported model reads of long comments."""
    note = f"Comments of more than {record.max_length} tokens: call it with truncation=True"
    if record.long_text == "head":
        return f"{note}, which cuts them as in training."
    return (
        f"{note}, which reads their start alone; only toxbench predict reads them as in training "
        f"(long_text = {record.long_text})."
    )


def _with_calibration(exported: Any, label_count: int, calibration: Calibration) -> Any:
    """Return a copy whose last layer of ``label_count`` outputs computes calibrated logits.

    `_check_exported` detects a model that computes more after this layer.

    Raises:
        PluginError: the model has no such layer, or it has no bias.
    """
    if calibration == Calibration():
        return exported
    calibrated = copy.deepcopy(exported)  # it may share tensors with the stored model
    layers = [
        layer
        for layer in calibrated.modules()
        if isinstance(layer, nn.Linear) and layer.out_features == label_count
    ]
    if not layers or layers[-1].bias is None:
        raise export_error("it has no linear layer with biases that computes the logits")
    with torch.no_grad():
        layers[-1].weight.div_(calibration.temperature)
        layers[-1].bias.div_(calibration.temperature).add_(calibration.shift)
    return calibrated


def _set_labels(config: Any, labels: tuple[str, ...]) -> None:
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "multi_label_classification"


def write_tokenizer(model: Model, folder: Path) -> None:
    """Write a model's tokenizer, with the maximum length of its training."""
    tokenizer = model.tokenizer
    original_length = tokenizer.model_max_length
    tokenizer.model_max_length = model.record.max_length
    tokenizer.save_pretrained(folder)
    tokenizer.model_max_length = original_length


def label_thresholds(record: ModelRecord) -> dict[str, dict[str, float]]:
    """Return the thresholds of a model: rule -> label -> threshold."""
    return {
        rule: dict(zip(record.labels, values, strict=True))
        for rule, values in record.thresholds.items()
    }


def _check_exported(model: Model, folder: Path) -> None:
    """Load the exported folder with transformers alone and compare token ids and logits."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        module = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        ).eval()
    except Exception as error:
        raise export_error(
            f"transformers cannot load it ({' '.join(str(error).split())})"
        ) from error
    check_token_ids(model, lambda phrase: tokenizer(phrase, truncation=True)["input_ids"])
    batch = sample_batch(model, module)
    with torch.inference_mode():
        count, calibration = len(model.record.labels), model.record.calibration
        expected = CalibratedForward(model.module, count, calibration)(**batch)
        logits = module(**batch).logits
    if logits.shape != expected.shape:
        raise export_error(
            f"its logits have shape {list(logits.shape)}, not {list(expected.shape)}"
        )
    difference = ((logits - expected).abs() / expected.abs().clamp(min=1)).max().item()
    if not difference <= TOLERANCE:  # NaN is refused, too
        raise export_error(f"its logits differ by {difference:.1e}")


def check_token_ids(model: Model, encode: Callable[[str], list[int]]) -> None:
    """Compare the token ids of some phrases with those of a model's tokenizer.

    Raises:
        PluginError: they differ.
    """
    limit = {"truncation": True, "max_length": model.record.max_length}
    for phrase in PHRASES:
        if encode(phrase) != model.tokenizer(phrase, **limit)["input_ids"]:
            raise export_error("its tokenizer returns different token ids")


def sample_batch(model: Model, module: nn.Module) -> dict[str, torch.Tensor]:
    """Return phrases and random ids of several lengths as one padded batch ``[row, token]``.

    The ids are in the vocabulary of the tokenizer and, if it has a config, of ``module``.
    """
    tokenizer, max_length = model.tokenizer, model.record.max_length
    config = getattr(module, "config", None)
    vocabulary_size = min(getattr(config, "vocab_size", len(tokenizer)), len(tokenizer))
    rows = [tokenizer(p, truncation=True, max_length=max_length)["input_ids"] for p in PHRASES]
    generator = torch.Generator().manual_seed(0)
    for length in {3, (3 + max_length) // 2, max_length}:
        inner = torch.randint(vocabulary_size, (length,), generator=generator).tolist()
        rows.append([rows[0][0], *inner[2:], rows[0][-1]])
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def export_error(reason: str) -> PluginError:
    """Return the error of an exported model that is not the stored one."""
    return PluginError(
        f"the exported model differs from the stored one: {reason}; nothing was written; toxbench "
        "predict works with the stored model"
    )


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts with their codes, ``[row, label]``, and sampling units, ``[row]``."""

    texts: Sequence[str]
    codes: Codes
    units: Units


@dataclass(frozen=True)
class Variant:
    """A model in one format: what computes it, and the bytes of its file."""

    classifier: TextClassifier
    size: int


def read_test_rows(store: CellStore, fold: int, table: TextDataset) -> LabelledTexts:
    """Return the test rows of a fold of stored results; ``table`` is that of the results."""
    rows = np.array(store.protocol().folds[fold].test, dtype=np.int64)
    texts = [table.texts[row] for row in rows.tolist()]
    return LabelledTexts(texts, table.codes[rows], sampling_units(store.rows().groups[rows]))


def compare(
    variants: Mapping[str, Variant], rows: LabelledTexts, thresholds: Sequence[float]
) -> Table:
    """Score and time variants of a model; return one row for each, compared with the first."""
    probabilities = {
        name: variant.classifier.predict_probabilities(rows.texts)
        for name, variant in variants.items()
    }
    predictions = {
        name: predict(hide_unlabelled(values, rows.codes), thresholds)
        for name, values in probabilities.items()
    }
    targets = known_targets(rows.codes)
    first = next(iter(variants))
    timed = rows.texts[:TIMED_ROWS]
    speeds = _comments_per_second(variants, timed)
    samples = {
        name: SampleCounts(sum_by_unit(row_counts(targets, values)[None], rows.units))
        for name, values in predictions.items()
    }
    scores = bootstrap(samples)
    return create_table(
        f"Formats of the model, on {len(rows.texts)} test rows at the thresholds of the rule 0.5",
        ("format", "MB", "comments/s", "changed labels",
         *(column for title in HEADLINES.values() for column in (title, f"{title} difference"))),
        [
            (name, f"{variant.size / 1e6:.1f}", f"{speeds[name]:.0f}",
             f"{(predictions[name] != predictions[first]).mean():.2%}",
             *_score_cells(scores, name, first))
            for name, variant in variants.items()
        ],
        (
            f"Differences are from {first}, with 95 % confidence intervals over rows or their "
            "groups. Changed labels are the share of all labels that are predicted differently.",
            f"Comments/s on this CPU, with tokenization: median of {ROUNDS} rounds over "
            f"{len(timed)} rows; each round times all formats.",
        ),
    )  # fmt: skip


def _comments_per_second(variants: Mapping[str, Variant], texts: Sequence[str]) -> dict[str, float]:
    """Time the variants in turn, so that a slow moment of the machine affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, variant in variants.items():
            started = time.perf_counter()
            variant.classifier.predict_probabilities(texts)
            seconds[name].append(time.perf_counter() - started)
    return {name: len(texts) / median(values) for name, values in seconds.items()}


def _score_cells(
    scores: Mapping[str, BootstrapScores], name: str, first: str
) -> Iterator[float | str | None]:
    """Yield each score, and its difference from that of ``first``."""
    pair = {key: scores[key] for key in (name, first)}
    for metric in HEADLINES:
        means = {key: float(values.observed[metric].mean()) for key, values in pair.items()}
        yield means[name]
        if name == first:
            yield None
        elif scores[first].effective_units < MIN_EFFECTIVE_UNITS:  # no interval can be given
            yield f"{means[name] - means[first]:+.3f}"
        else:
            (d,) = compare_all(pair, means, metric)
            yield f"{d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
