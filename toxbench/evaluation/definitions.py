"""What each shared metric is, in words. Imports nothing heavy, so that ``--help`` can show it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Rules for thresholds; `toxbench.evaluation.thresholds` chooses them.
RULES = HALF, GLOBAL, PER_LABEL = "0.5", "global", "per-label"


@dataclass(frozen=True)
class Metric:
    """How to read a number.

    Attributes:
        direction: what is better; "-" for what describes the rows, not the candidate.
        low: lowest possible value.
        high: highest possible value; infinite where there is none.
        definition: in words.
    """

    direction: Literal["higher", "lower", "-"]
    low: float
    high: float
    definition: str


def _higher(definition: str, low: float = 0) -> Metric:
    return Metric("higher", low, 1, definition)


def _lower(definition: str) -> Metric:
    return Metric("lower", 0, 1, definition)


def _of_rows(definition: str, high: float = 1) -> Metric:
    return Metric("-", 0, high, definition)


# What `evaluate` returns, in this order.
METRICS: Mapping[str, Metric] = {
    "micro_f1": _higher("F1 over all (row, label) entries together"),
    "micro_precision": _higher("precision over all entries together"),
    "micro_recall": _higher("recall over all entries together"),
    "macro_f1": _higher("mean of the labels' F1, over labels with a positive row"),
    "macro_precision": _higher("mean of the labels' precision, over labels with a positive row"),
    "macro_recall": _higher("mean of the labels' recall, over labels with a positive row"),
    "weighted_f1": _higher("mean of the labels' F1, weighted by support"),
    "weighted_precision": _higher("mean of the labels' precision, weighted by support"),
    "weighted_recall": _higher("mean of the labels' recall, weighted by support"),
    "samples_f1": _higher("mean of the rows' F1; a row without label and prediction scores 0"),
    "samples_precision": _higher("mean of the rows' precision; a row without prediction scores 0"),
    "samples_recall": _higher("mean of the rows' recall; a row without label scores 0"),
    "subset_accuracy": _higher("share of rows with every label right"),
    "subset_accuracy_empty": _higher(
        "of the rows without any label, the share with nothing predicted"
    ),
    "subset_accuracy_labelled": _higher(
        "of the rows with a label, the share with every label right"
    ),
    "hamming_loss": _lower("share of wrong entries"),
    "micro_mcc": _higher(
        "Matthews correlation over all entries together; 0 where targets or predictions are "
        "constant",
        low=-1,
    ),
    "macro_mcc": _higher(
        "mean of the labels' Matthews correlation, over labels with a positive row", low=-1
    ),
    "micro_average_precision": _higher("average precision over all entries together"),
    "micro_prevalence": _of_rows(
        "share of positive entries: micro average precision of constant probabilities"
    ),
    "macro_average_precision": _higher(
        "mean of the labels' average precision, where a positive exists"
    ),
    "micro_roc_auc": _higher("ROC AUC over all entries together"),
    "macro_roc_auc": _higher("mean of the labels' ROC AUC, where a positive and a negative exist"),
    "label_ranking_average_precision": _higher(
        "mean over rows, and over each row's labels, of the share of the row's own among all "
        "labels at least as probable; a row without any label scores 1"
    ),
    "label_ranking_floor": _of_rows(
        "label ranking average precision of constant probabilities on the same rows"
    ),
    "brier": _lower("mean over all entries of the squared difference of probability and target"),
    "expected_calibration_error": _lower(
        "mean over all entries of the distance between mean probability and share of positives "
        "in the entry's bin; 10 bins of equal width, an edge belongs to the upper one"
    ),
    "scored_labels": _of_rows(
        "labels with a positive row, which macro averages are over", high=math.inf
    ),
}
