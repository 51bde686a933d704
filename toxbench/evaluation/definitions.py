"""The definitions of the shared metrics. Imports nothing heavy, so ``--help`` can print them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from toxbench.records import FIXED_RULE

# Thresholds rules; `toxbench.evaluation.thresholds` chooses the thresholds.
RULES = HALF, GLOBAL, ACCURACY, PER_LABEL = FIXED_RULE, "global", "accuracy", "per-label"
# Rule -> version, increased whenever the chosen thresholds change.
RULE_VERSIONS: Mapping[str, int] = {HALF: 1, GLOBAL: 2, ACCURACY: 1, PER_LABEL: 2}

# Column of tuned thresholds -> its metric and its rule.
TUNED_COLUMNS: Mapping[str, tuple[str, str]] = {
    "micro_f1_global": ("micro_f1", GLOBAL),
    "micro_f1_per_label": ("micro_f1", PER_LABEL),
    "subset_accuracy_accuracy": ("subset_accuracy", ACCURACY),
    "subset_accuracy_per_label": ("subset_accuracy", PER_LABEL),
}
# Metric -> title of the metrics that the leaderboard shows first, with intervals and tests.
HEADLINES: Mapping[str, str] = {"micro_f1": "micro-F1", "subset_accuracy": "subset accuracy"}
RANKING_METRIC = "micro_f1"  # by default
HEADLINE = "headline"
# Metric that a search of hyperparameters can maximize -> its title.
OBJECTIVES: Mapping[str, str] = {
    HEADLINE: "mean of micro-F1 and subset accuracy",
    **HEADLINES,
    "micro_average_precision": "micro average precision",
}
# Objective that a search can minimize in addition -> its definition.
SEARCH_COSTS: Mapping[str, str] = {
    "gap": "train minus inner validation score",
    "seconds": "training seconds of a fold on this machine",
}
# Headline metric -> columns that a verdict compares: at the leaderboard's thresholds, at tuned
# thresholds, and without a threshold.
VERDICT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "micro_f1": ("micro_f1", "micro_f1_global", "micro_average_precision"),
    "subset_accuracy": (
        "subset_accuracy", "subset_accuracy_accuracy", "micro_average_precision",
    ),
}  # fmt: skip
ROPE = 0.02  # half the width of the region of practical equivalence, by default
# Column of a gap, train minus test -> its score (see `row_counts`), and its rule; "" is the
# leaderboard's. The gap of the log loss is that of the log likelihood.
GAP_COLUMNS: Mapping[str, tuple[str, str]] = {
    "micro_f1_gap": ("micro_f1", ""),
    "subset_accuracy_gap": ("subset_accuracy", ""),
    "micro_f1_global_gap": ("micro_f1", GLOBAL),
    "subset_accuracy_excess_gap": ("excess_accuracy", ""),
    "log_loss_gap": ("log_likelihood", ""),
}


@dataclass(frozen=True)
class Metric:
    """The definition of a metric.

    Attributes:
        direction: of better values; "-" for a property of the rows, not of the candidate.
        low: lowest possible value.
        high: highest possible value; infinite if there is none.
        definition: in words.
        version: increased whenever the values change, but not with the words.
    """

    direction: Literal["higher", "lower", "-"]
    low: float
    high: float
    definition: str
    version: int = 1


def _higher(definition: str, low: float = 0) -> Metric:
    return Metric("higher", low, 1, definition)


def _lower(definition: str) -> Metric:
    return Metric("lower", 0, 1, definition)


def _row_statistic(definition: str, high: float = 1) -> Metric:
    return Metric("-", 0, high, definition)


# The metrics that `evaluate` returns, in this order.
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
    "samples_f1": _higher("mean of the rows' F1; a row without labels and predictions scores 0"),
    "samples_precision": _higher("mean of the rows' precision; a row without predictions scores 0"),
    "samples_recall": _higher("mean of the rows' recall; a row without labels scores 0"),
    "samples_jaccard": _higher(
        "mean of the rows' Jaccard index: labels that are true and predicted, divided by labels "
        "that are true or predicted; a row without labels and predictions scores 1"
    ),
    "subset_accuracy": _higher("share of rows with all labels predicted correctly"),
    "subset_accuracy_empty": _higher("subset accuracy of the rows without labels"),
    "subset_accuracy_labelled": _higher("subset accuracy of the rows with at least one label"),
    "hamming_loss": _lower("share of entries predicted incorrectly"),
    "micro_mcc": _higher(
        "Matthews correlation over all entries together; 0 if targets or predictions are constant",
        low=-1,
    ),
    "macro_mcc": _higher(
        "mean of the labels' Matthews correlation, over labels with a positive row", low=-1
    ),
    "micro_average_precision": _higher("average precision over all entries together"),
    "micro_prevalence": _row_statistic(
        "share of positive entries: the micro average precision of constant probabilities"
    ),
    "macro_average_precision": _higher(
        "mean of the labels' average precision, over labels with a positive row"
    ),
    "micro_roc_auc": _higher("ROC AUC over all entries together"),
    "macro_roc_auc": _higher(
        "mean of the labels' ROC AUC, over labels with a positive and a negative row"
    ),
    "label_ranking_average_precision": _higher(
        "mean over rows, and over the true labels of each row, of the share of true labels among "
        "the labels that are at least as probable; a row without labels scores 1"
    ),
    "label_ranking_floor": _row_statistic(
        "label ranking average precision of constant probabilities on the same rows"
    ),
    "brier": _lower("mean squared difference of probability and target over all entries"),
    "expected_calibration_error": _lower(
        "mean absolute difference of mean probability and share of positives over 10 equal-width "
        "bins, weighted by their entries; an edge belongs to the upper bin"
    ),
    "scored_labels": _row_statistic(
        "number of labels with a positive row, over which macro averages are taken", high=math.inf
    ),
}
# Stored with each cell: a cell with other versions is scored again from its probabilities.
VERSIONS: Mapping[str, int] = {
    **{name: metric.version for name, metric in METRICS.items()},
    **{f"thresholds {rule}": version for rule, version in RULE_VERSIONS.items()},
}
