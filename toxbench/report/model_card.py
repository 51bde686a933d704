"""The model card of a saved model: origin, scores, thresholds, intended use and limits."""

from dataclasses import dataclass

from toxbench.evaluation.definitions import HALF
from toxbench.plugin.contracts import Table
from toxbench.records import CellRecord
from toxbench.report.audit import leak_note
from toxbench.report.labels import tested_labels
from toxbench.report.tables import Value, create_table
from toxbench.store.cells import ProtocolRecord
from toxbench.store.models import ModelRecord
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
        create_table("Rounding", ("", ""), _rounding(model, rounding), ()),
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


def _rounding(model: ModelRecord, rounding: RoundingError) -> list[list[str]]:
    if model.precision == "fp32":
        return [["evaluation precision", "fp32, the same as the stored probabilities"]]
    return [
        ["evaluation precision", f"{model.precision}, for all scores above"],
        ["difference from fp32", f"at most {rounding.largest:.2g} in a test probability"],
        ["predictions that differ from fp32", f"{rounding.decisions}, at threshold 0.5"],
    ]
