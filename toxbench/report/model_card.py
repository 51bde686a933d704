"""The model card of a saved model: what it is, what it scored, what it is for and what not."""

from collections.abc import Sequence
from dataclasses import dataclass

from toxbench.evaluation.definitions import HALF
from toxbench.plugin.contracts import Table
from toxbench.records import CellRecord
from toxbench.report.audit import leak_note
from toxbench.store.cells import ProtocolRecord
from toxbench.store.models import ModelRecord
from toxbench.util.text import format_millions

_SCORES = {
    "micro_f1": "micro-F1", "subset_accuracy": "subset accuracy", "macro_f1": "macro-F1",
    "micro_precision": "precision", "micro_recall": "recall",
}  # fmt: skip

HEAD = """---
library_name: transformers
pipeline_tag: text-classification
---
"""

TITLE = """# A multi-label classifier, trained by toxbench

One of the models that toxbench trained to compare backbones on a table of comments with yes/no
labels. `toxbench predict` uses it as it is, `toxbench export` writes it for transformers.
"""

USE = """## Intended use and limits

It is for finding comments that a person should read, on comments like those of its table, and for
comparing backbones. It is not for deciding about people without a person: not for blocking,
reporting or sanctioning anybody automatically.

- It learnt from a small sample. Comments of another platform, time or language are another matter.
- Most labels are rare. Scores of a label with few positive test rows say little; one without any
  was not tested at all, and one without positive train rows cannot have been learnt.
- The scores above are of one training. The leaderboard says what other seeds scored and how sure
  the numbers are. Of several models the one with the highest validation score was kept, so that
  its own validation score flatters.
- Labels are the judgement of whoever labelled the table, with their errors and their biases.
- Comments beyond the maximum length are cut: the end of a long one is not seen.
"""


@dataclass(frozen=True)
class Rounding:
    """How far the stored probabilities of the test rows are from those computed in fp32.

    Attributes:
        largest: difference of two probabilities.
        decisions: entries that differ at threshold 0.5.
    """

    largest: float
    decisions: int


def model_card(
    model: ModelRecord, record: CellRecord, protocol: ProtocolRecord, rounding: Rounding
) -> tuple[Table, ...]:
    """Return the tables of a card, without a comment of the table that the model learnt from.

    Args:
        model: what is known of the saved model.
        record: of its cell.
        protocol: that it was measured with.
        rounding: of the cell.
    """
    return (
        _table("What it is", ("", ""), _facts(model, record, protocol), _warnings(model, protocol)),
        _table(
            f"What it scored on {len(protocol.folds[record.key.fold].test)} test rows",
            ("thresholds", *_SCORES.values(), "train micro-F1"),
            [_scores(record, rule) for rule in record.metrics],
            ("macro-F1, the mean over labels, leaves out labels without a positive test row.",),
        ),
        _table(
            "Labels",
            ("label", "positive test rows", "precision", "recall", "F1",
             *(f"threshold {rule}" for rule in model.thresholds)),
            [_label(model, record, place) for place in range(len(model.labels))],
            ("Precision, recall and F1 are of the test rows at threshold 0.5.",),
        ),
        _table("Rounding", ("", ""), _rounding(model, rounding), ()),
    )  # fmt: skip


def _facts(model: ModelRecord, record: CellRecord, protocol: ProtocolRecord) -> list[list[str]]:
    fold = protocol.folds[record.key.fold]
    kept = "the highest of its backbone" if model.saved == "best" else "one of all that were saved"
    score = "none: no validation rows" if model.score is None else f"{model.score:.4f}, {kept}"
    return [
        ["backbone", model.title],
        ["plugin", model.distribution],
        ["weights it started from", model.weights.label],
        ["parameters", format_millions(record.parameters)],
        ["cell", record.key.stem],
        ["table", f"{protocol.name}: {protocol.rows} comments"],
        ["data fingerprint", protocol.data_fingerprint],
        ["protocol fingerprint", protocol.fingerprint],
        ["train, validation, test", f"{len(fold.train)}, {len(fold.validation)}, {len(fold.test)}"],
        ["validation score", score],
        ["maximum length", f"{model.max_length} tokens"],
        ["made with", ", ".join(f"{k} {v}" for k, v in record.environment.versions.items())],
    ]  # fmt: skip


def _warnings(model: ModelRecord, protocol: ProtocolRecord) -> tuple[str, ...]:
    said = []
    if model.synthetic:
        said.append(
            "It was trained on toxbench's synthetic sample: it is a demonstration, and knows "
            "nothing about real comments."
        )
    if model.weights.source == "stand-in":
        said.append(
            "It started from a stand-in, small substitute weights: it says nothing about the "
            "checkpoint that gives the backbone its name."
        )
    if protocol.audit.leaked_rows:
        said.append(leak_note(protocol.audit))
    return tuple(said)


def _scores(record: CellRecord, rule: str) -> list[str]:
    test, train = record.metrics[rule]["test"], record.metrics[rule]["train"]
    return [rule, *(_number(test.get(name)) for name in _SCORES), _number(train.get("micro_f1"))]


def _label(model: ModelRecord, record: CellRecord, place: int) -> list[str]:
    own = record.per_label[HALF][place]
    thresholds = [f"{by_label[place]:.4g}" for by_label in model.thresholds.values()]
    if not own.support:
        return [own.label, "0", "-", "-", "-", *thresholds]
    scores = (_number(own.precision), _number(own.recall), _number(own.f1))
    return [own.label, str(own.support), *scores, *thresholds]


def _rounding(model: ModelRecord, rounding: Rounding) -> list[list[str]]:
    if model.precision == "fp32":
        return [["evaluated in", "fp32; its stored probabilities are this model's"]]
    return [
        ["evaluated in", f"{model.precision}, so the scores above are of rounded products"],
        ["fp32 differs by", f"at most {rounding.largest:.2g} in a test row's probability"],
        ["decisions that differ at 0.5", str(rounding.decisions)],
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> Table:
    return Table(
        title=title,
        headers=tuple(headers),
        rows=tuple(map(tuple, rows)),
        notes=tuple(notes),
        records=(),
    )
