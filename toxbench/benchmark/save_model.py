"""Saving trained models with their model cards: origin, scores, thresholds, intended use.

The process that trains a model writes it to a temporary folder. The main process then publishes it
with its record and model card, unless a better model of the candidate exists.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_model
from torch import nn

from toxbench.benchmark.plan import Plan
from toxbench.errors import PluginError
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.thresholds import calibrate, predict
from toxbench.plugin.contracts import Table
from toxbench.plugin.registry import Registry
from toxbench.records import CellRecord
from toxbench.report.audit import leak_note
from toxbench.report.labels import tested_labels
from toxbench.report.tables import Value, create_table
from toxbench.store.cells import ProtocolRecord
from toxbench.store.files import PartProbabilities
from toxbench.store.models import PROBABILITIES, WEIGHTS, ModelRecord, SavePolicy, validation_score
from toxbench.training.weights import tokenizer_files
from toxbench.util.atomic import write_error
from toxbench.util.text import format_millions

_SCORES = {
    "micro_f1": "micro-F1", "subset_accuracy": "subset accuracy", "macro_f1": "macro-F1",
    "micro_precision": "micro-precision", "micro_recall": "micro-recall",
}  # fmt: skip

_CALIBRATED = (
    "Thresholds are for calibrated probabilities, which toxbench predict and the exported model "
    "return. That of the rule 0.5 makes the decisions that 0.5 makes without calibration."
)

FRONT_MATTER = """---
library_name: transformers
pipeline_tag: text-classification
---
"""

INTRODUCTION = """# Multi-label text classifier, trained by toxbench

toxbench trained this model to compare backbones on a table of comments with yes/no labels.
`toxbench predict` applies it to new comments; `toxbench export` converts it for transformers.
"""

INTENDED_USE = """## Intended use and limits

Use this model to find comments for human review, on data like its training table, and to compare
backbones. Do not use it for decisions about people without human review, such as automatic
blocking, reporting or sanctions.

- The training sample is small. Scores on comments of another platform, time or language can be
  much lower.
- Most labels are rare. Scores of a label with few positive test rows are unreliable. A label
  without positive test rows was not evaluated, and one without positive train rows was not learned.
- The scores above are from one training run. The leaderboard has the scores of all seeds, with
  confidence intervals. If the model was selected by its validation score, this score is too
  optimistic.
- The labels are human judgements and contain errors and biases.
- Comments are truncated at the maximum length: the model does not read the rest.
"""
_CONFIGS = ("config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class RoundingError:
    """Difference between the stored probabilities of the test rows and those computed in fp32.

    Attributes:
        largest: absolute difference of two probabilities.
        decisions: number of (row, label) entries whose predictions at threshold 0.5 differ.
    """

    largest: float
    decisions: int


def model_card(
    model: ModelRecord, record: CellRecord, protocol: ProtocolRecord, rounding: RoundingError
) -> tuple[Table, ...]:
    """Return the tables of the card of a cell's model; they contain no comment."""
    test_rows = len(protocol.folds[record.key.fold].test)
    shown = tested_labels(protocol)
    properties, warnings = _properties(model, record, protocol), _warnings(model, protocol)
    return (
        create_table("Model", ("", ""), properties, warnings),
        create_table(
            f"Scores on {test_rows} test rows",
            ("thresholds", *_SCORES.values(), "train micro-F1"),
            [_scores(record, rule) for rule in record.metrics],
            ("macro-F1 is the mean over the labels with a positive test row.",),
        ),
        create_table(
            "Labels",
            ("label", "positive test rows", "precision", "recall", "F1",
             *(f"threshold ({rule})" for rule in model.thresholds)),
            [_label(model, record, place) for place in shown.places],
            (
                "Precision, recall and F1 are for test rows at the rule 0.5.",
                _CALIBRATED,
                *shown.notes,
            ),
        ),
        create_table("Rounding", ("", ""), _rounding_rows(model, rounding), ()),
    )  # fmt: skip


def _properties(
    model: ModelRecord, record: CellRecord, protocol: ProtocolRecord
) -> list[list[str]]:
    fold = protocol.folds[record.key.fold]
    selection = "the best of its backbone" if model.saved == "best" else "all models were saved"
    score = "none: no validation rows" if model.score is None else f"{model.score:.4f}, {selection}"
    versions = ", ".join(f"{name} {v}" for name, v in record.environment.versions.items())
    return [
        ["backbone", model.title],
        ["plugin", model.distribution],
        ["initial weights", model.weights.label],
        ["parameters", format_millions(record.parameters)],
        ["cell", record.key.stem],
        ["table", f"{protocol.name}: {protocol.rows} comments"],
        ["data fingerprint", protocol.data_fingerprint],
        ["protocol fingerprint", protocol.fingerprint],
        ["train, validation, test rows",
         f"{len(fold.train)}, {len(fold.validation)}, {len(fold.test)}"],
        ["validation score (mean of micro-F1 and subset accuracy)", score],
        ["calibration on validation rows",
         f"temperature {model.calibration.temperature:.4g}, shift {model.calibration.shift:+.4g}"],
        ["maximum length", f"{model.max_length} tokens; of longer comments: {model.long_text}"],
        ["versions", versions],
    ]  # fmt: skip


def _warnings(model: ModelRecord, protocol: ProtocolRecord) -> tuple[str, ...]:
    warnings = []
    if model.synthetic:
        warnings.append(
            "For demonstration only: the model was trained on toxbench's synthetic sample, not on "
            "real comments."
        )
    if model.weights.source == "stand-in":
        warnings.append(
            "The initial weights are small stand-in weights: the scores are not those of the "
            "checkpoint that the backbone is named after."
        )
    if protocol.audit.leaked_rows:
        warnings.append(leak_note(protocol.audit))
    return tuple(warnings)


def _scores(record: CellRecord, rule: str) -> list[Value]:
    test, train = record.metrics[rule]["test"], record.metrics[rule]["train"]
    return [rule, *map(test.get, _SCORES), train.get("micro_f1")]


def _label(model: ModelRecord, record: CellRecord, place: int) -> list[Value]:
    scores = record.per_label[HALF][place]
    thresholds = [f"{by_label[place]:.4g}" for by_label in model.thresholds.values()]
    numbers = (scores.precision, scores.recall, scores.f1) if scores.support else [None] * 3
    return [scores.label, scores.support, *numbers, *thresholds]


def _rounding_rows(model: ModelRecord, rounding: RoundingError) -> list[list[str]]:
    if model.precision == "fp32":
        return [["evaluation precision", "fp32, the same as the stored probabilities"]]
    return [
        ["evaluation precision", f"{model.precision}, for all scores above"],
        ["difference from fp32", f"at most {rounding.largest:.2g} in a test probability"],
        ["predictions that differ from fp32", f"{rounding.decisions}, at threshold 0.5"],
    ]


def write_model(
    target: Path, module: nn.Module, weights: Path, probabilities: npt.NDArray[np.float32]
) -> None:
    """Write a module to a folder from which its backbone can be built again.

    Args:
        target: the folder; files of a killed process in it are removed first.
        module: trained.
        weights: folder of its initial checkpoint, whose config and tokenizer are copied.
        probabilities: of the test rows, float32 ``[row, label]``, computed in fp32.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the folder is removed.
        PluginError: the module cannot be written as tensors.
    """
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        save_model(module, str(target / WEIGHTS), metadata={"format": "pt"})
        save_file({"test": np.ascontiguousarray(probabilities)}, target / PROBABILITIES)
        for path in (weights / "config.json", *tokenizer_files(weights)):
            _copy_without_paths(path, target / path.name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise write_error(target, error) from error
    except Exception as error:
        shutil.rmtree(target, ignore_errors=True)
        raise PluginError(
            f"the module cannot be saved: {' '.join(str(error).split())}; use --save-models none "
            "to train it without saving"
        ) from error


def publish_model(
    plan: Plan, saved: SavePolicy, record: CellRecord, probabilities: PartProbabilities
) -> None:
    """Publish the model that `write_model` wrote for a cell, unless a better one exists.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    assert record.weights is not None  # noqa: S101 - only backbones have models
    assert record.settings is not None  # noqa: S101
    model = ModelRecord(
        key=record.key,
        saved=saved,
        fingerprint=record.fingerprint,
        synthetic=plan.is_synthetic,
        distribution=record.distribution,
        weights=record.weights,
        tuned=record.tuning is not None,
        labels=plan.protocol.comments.labels,
        calibration=record.calibration,
        thresholds={
            rule: tuple(calibrate(np.array(values), record.calibration).tolist())
            for rule, values in record.thresholds.items()
        },
        max_length=record.settings.max_length,
        long_text=record.settings.long_text,
        precision=record.environment.precision,
        score=validation_score(record),
    )
    temporary = plan.store.models.temporary_path(record.key)

    def make_card() -> str:
        exact = load_file(temporary / PROBABILITIES)["test"]
        rounding = _rounding(exact, probabilities["test"], record)
        tables = model_card(model, record, plan.store.protocol(), rounding)
        render = Registry.built_in().report_format("markdown").item.render
        texts = [render(table).strip() + "\n" for table in tables]
        return "\n".join([FRONT_MATTER, INTRODUCTION, *texts, INTENDED_USE])

    plan.store.models.publish(model, make_card)


def _rounding(
    exact: npt.NDArray[np.float32], stored: npt.NDArray[np.float32], record: CellRecord
) -> RoundingError:
    half = record.thresholds[HALF]
    return RoundingError(
        largest=float(np.abs(exact - stored).max(initial=0)),
        decisions=int((predict(exact, half) != predict(stored, half)).sum()),
    )


def _copy_without_paths(source: Path, target: Path) -> None:
    """Copy a file; leave out the entries of a config that name folders of this machine."""
    if source.name in _CONFIGS:
        content = json.loads(source.read_text(encoding="utf-8"))
        portable = {name: value for name, value in content.items() if not _is_local(name, value)}
        if portable != content:
            target.write_text(json.dumps(portable, indent=2), encoding="utf-8")
            return
    shutil.copyfile(source, target)


def _is_local(name: str, value: object) -> bool:
    return name.endswith("name_or_path") or (isinstance(value, str) and os.path.isabs(value))
