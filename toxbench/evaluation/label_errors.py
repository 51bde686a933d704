"""Rows that all candidates get wrong, likely label errors, and the bounds that copies set.

Probabilities must be of rows that their candidate was not trained on, such as the test rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.thresholds import predict
from toxbench.util.arrays import UNLABELLED, Codes, Floats, Predictions, Probabilities, Targets

ROWS_NEEDED = 5  # with a label, and without it, to judge the label
_MIN_LIKELIHOOD = 1e-7  # float32 rounds probabilities closer to 0 or 1

Candidates = Mapping[str, Probabilities]  # name -> [seed, row, label] of the same rows and labels


@dataclass(frozen=True)
class HardRow:
    """A row that every candidate gets wrong.

    Attributes:
        row: counted from 0.
        false_negatives: label -> number of candidates that miss it.
        false_positives: label -> number of candidates that predict it wrongly.
        loss: binary cross-entropy in nats, mean over labels, seeds and candidates.
    """

    row: int
    false_negatives: Mapping[int, int]
    false_positives: Mapping[int, int]
    loss: float


@dataclass(frozen=True)
class Disagreement:
    """A row for which candidates predict different labels.

    Attributes:
        row: counted from 0.
        predictions: candidate -> labels that it predicts.
        spread: largest minus smallest mean probability among candidates, summed over labels.
    """

    row: int
    predictions: Mapping[str, tuple[int, ...]]
    spread: float


@dataclass(frozen=True)
class LabelIssue:
    """A likely label error: an entry of the table that candidates confidently contradict.

    Attributes:
        row: counted from 0.
        label: counted from 0.
        has_label: whether the row has the label in the table.
        probability: of the label, mean over candidates.
    """

    row: int
    label: int
    has_label: bool
    probability: float

    @property
    def self_confidence(self) -> float:
        """Probability of the entry in the table: the smaller, the more suspect."""
        return self.probability if self.has_label else 1 - self.probability


def find_hard_rows(targets: Targets, candidates: Candidates) -> list[HardRow]:
    """Find the rows for which every candidate predicts a label wrongly, highest loss first.

    Args:
        targets: 0/1, ``[row, label]``.
        candidates: at least one.
    """
    wrong = np.stack([majority_vote(p) != targets for p in candidates.values()])
    losses = np.mean([row_losses(targets, p) for p in candidates.values()], axis=0)
    votes = wrong.sum(axis=0)  # [row, label]
    rows = np.flatnonzero(wrong.any(axis=2).all(axis=0))
    return [
        HardRow(
            row=row,
            false_negatives=_nonzero(votes[row] * (targets[row] == 1)),
            false_positives=_nonzero(votes[row] * (targets[row] == 0)),
            loss=float(losses[row]),
        )
        for row in rows[np.argsort(-losses[rows], kind="stable")].tolist()
    ]


def find_disagreements(candidates: Candidates) -> list[Disagreement]:
    """Find the rows for which candidates predict different labels, widest spread first.

    Args:
        candidates: at least one; a single candidate gives no disagreement.
    """
    predictions = {name: majority_vote(p) for name, p in candidates.items()}
    means = np.stack([p.mean(axis=0, dtype=np.float64) for p in candidates.values()])
    spreads = np.ptp(means, axis=0).sum(axis=1)
    stacked = np.stack(list(predictions.values()))  # [candidate, row, label]
    rows = np.flatnonzero((stacked != stacked[0]).any(axis=(0, 2)))
    return [
        Disagreement(
            row=row,
            predictions={n: tuple(np.flatnonzero(p[row]).tolist()) for n, p in predictions.items()},
            spread=float(spreads[row]),
        )
        for row in rows[np.argsort(-spreads[rows], kind="stable")].tolist()
    ]


def find_label_issues(targets: Targets, probabilities: Floats) -> list[LabelIssue]:
    """Find likely label errors by confident learning, lowest self-confidence first.

    Each label has two classes, 1 and 0. The threshold of a class is its mean probability among the
    rows of this class (Northcutt, Jiang and Chuang 2021, doi:10.1613/jair.1.12125, eq. 2). An
    entry is suspect if the opposite class is more probable and reaches its threshold (eq. 1). This
    is ``find_label_issues(filter_by="confident_learning")`` of cleanlab 2.9 for each label, except
    that labels which `judgeable_labels` excludes are skipped.

    Args:
        targets: 0/1, ``[row, label]``.
        probabilities: `mean_probabilities`, ``[row, label]``.
    """
    issues = [
        LabelIssue(row, label, bool(targets[row, label]), float(probabilities[row, label]))
        for label in np.flatnonzero(judgeable_labels(targets, probabilities)).tolist()
        for row in _contradicted_rows(targets[:, label] == 1, probabilities[:, label])
    ]
    return sorted(issues, key=lambda issue: (issue.self_confidence, issue.row, issue.label))


def judgeable_labels(targets: Targets, probabilities: Floats) -> npt.NDArray[np.bool_]:
    """Return whether errors of each label can be judged, ``[label]``; see `find_label_issues`.

    A label needs `ROWS_NEEDED` rows with it and as many without it, and candidates must predict it
    for some rows but not for all: a candidate that never predicts a label contradicts every row
    that has it, without evidence.
    """
    positives = targets.sum(axis=0, dtype=np.int64)
    enough = np.minimum(positives, len(targets) - positives) >= ROWS_NEEDED
    predicted = probabilities > 0.5
    return np.asarray(enough & predicted.any(axis=0) & ~predicted.all(axis=0))


def mean_probabilities(candidates: Candidates) -> Floats:
    """Average over seeds, then over candidates, all of equal weight: ``[row, label]``."""
    means = [p.mean(axis=0, dtype=np.float64) for p in candidates.values()]
    return np.asarray(np.mean(means, axis=0))


def majority_vote(probabilities: Probabilities) -> Predictions:
    """Return the prediction of most seeds at threshold 0.5; the mean probability breaks ties.

    Args:
        probabilities: ``[seed, row, label]``.

    Returns:
        0/1, ``[row, label]``.
    """
    share = predict(probabilities, [0.5] * probabilities.shape[2]).mean(axis=0)
    mean = probabilities.mean(axis=0, dtype=np.float64)
    return np.asarray(np.where(share == 0.5, mean > 0.5, share > 0.5), dtype=np.uint8)


def row_losses(targets: Targets, probabilities: Probabilities) -> Floats:
    """Return each row's binary cross-entropy in nats, mean over labels and seeds: ``[row]``.

    Args:
        targets: 0/1, ``[row, label]``.
        probabilities: ``[seed, row, label]``.
    """
    likelihood = np.where(targets == 1, probabilities, 1 - probabilities).astype(np.float64)
    return np.asarray(-np.log(likelihood.clip(_MIN_LIKELIHOOD, 1)).mean(axis=(0, 2)))


def _contradicted_rows(positive: npt.NDArray[np.bool_], probability: Floats) -> list[int]:
    """Return the rows whose entry of one label is confidently contradicted."""
    opposite = np.where(positive, 1 - probability, probability)
    mean_negative, mean_positive = (1 - probability[~positive]).mean(), probability[positive].mean()
    threshold = np.where(positive, mean_negative, mean_positive)
    rows: list[int] = np.flatnonzero((opposite > 0.5) & (opposite >= threshold)).tolist()
    return rows


def _nonzero(votes: npt.NDArray[np.int64]) -> dict[int, int]:
    return {label: count for label, count in enumerate(votes.tolist()) if count}


@dataclass(frozen=True)
class ScoreBounds:
    """The highest scores of a model that gives all copies of a text the same labels.

    Attributes:
        rows: number of rows over which the scores are taken.
        micro_f1: 0 if no row is positive.
        subset_accuracy: share of rows.
    """

    rows: int
    micro_f1: float
    subset_accuracy: float


def label_noise(
    codes: Codes, texts: npt.NDArray[np.int64]
) -> tuple[ScoreBounds, ScoreBounds] | None:
    """Return the bounds over all rows, and over the rows that have a copy.

    Rows that are not completely labelled are left out.

    Args:
        codes: ``[row, label]``.
        texts: number of each row's text, ``[row]``; equal for copies.

    Returns:
        None if no row has a copy.
    """
    is_complete = (codes != UNLABELLED).all(axis=1)
    targets, texts = codes[is_complete], texts[is_complete]
    is_copied = np.bincount(texts)[texts] > 1
    if not is_copied.any():
        return None
    return score_bounds(targets, texts), score_bounds(targets[is_copied], texts[is_copied])


def score_bounds(targets: Targets, texts: npt.NDArray[np.int64]) -> ScoreBounds:
    """Return the highest scores of predictions that depend on the text alone.

    Subset accuracy is highest if each text gets the most frequent label set of its rows. The
    micro-F1 F is highest if a text gets each label whose share of positive rows exceeds F / 2
    (Lipton et al. 2014, arXiv:1402.1892); F is the fixed point of this rule, which is reached from
    below.

    ``targets`` are 0/1, ``[row, label]``; ``texts`` as in `label_noise`.
    """
    order = np.argsort(texts, kind="stable")
    starts = np.flatnonzero(np.diff(texts[order], prepend=-1))
    rows = np.diff(starts, append=len(order))[:, None]
    positives = np.add.reduceat(targets[order].astype(np.int64), starts)  # [text, label]
    sets, counts = np.unique(np.column_stack([texts, targets]), axis=0, return_counts=True)
    most_frequent = np.maximum.reduceat(counts, np.flatnonzero(np.diff(sets[:, 0], prepend=-1)))
    f1, previous = 0.0, -1.0
    while f1 > previous:
        is_predicted = positives > f1 / 2 * rows
        predicted = (is_predicted * rows).sum()
        correct = positives[is_predicted].sum()
        previous, f1 = f1, 2 * correct / max(1, predicted + positives.sum())
    return ScoreBounds(len(targets), float(f1), float(most_frequent.sum() / len(targets)))
