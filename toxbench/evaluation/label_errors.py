"""Which rows candidates get wrong, which they disagree about, and which labels look wrong.

Probabilities must be of rows that their candidate was not trained on, as those of test rows are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.thresholds import predict
from toxbench.util.arrays import Floats, Predictions, Probabilities, Targets

FEWEST = 5  # rows with a label, and rows without it: fewer make no threshold
_SUREST = 1e-7  # float32 cannot tell a probability that is nearer to 0 or 1 from it

Candidates = Mapping[str, Probabilities]  # name -> [seed, row, label] of the same rows and labels


@dataclass(frozen=True)
class HardRow:
    """A row that every candidate gets wrong.

    Attributes:
        row: counted from 0.
        absent: given label -> number of candidates that do not predict it.
        added: label that is not given -> number of candidates that predict it.
        loss: binary cross-entropy in nats, mean over labels, seeds and candidates.
    """

    row: int
    absent: Mapping[int, int]
    added: Mapping[int, int]
    loss: float


@dataclass(frozen=True)
class Disagreement:
    """A row of which candidates predict different labels.

    Attributes:
        row: counted from 0.
        said: candidate -> labels that it predicts.
        spread: largest minus smallest mean probability among candidates, summed over labels.
    """

    row: int
    said: Mapping[str, tuple[int, ...]]
    spread: float


@dataclass(frozen=True)
class LabelIssue:
    """A label of a row that candidates confidently contradict.

    Attributes:
        row: counted from 0.
        label: its column.
        given: the row has it.
        probability: that the row has it, mean over candidates.
    """

    row: int
    label: int
    given: bool
    probability: float

    @property
    def self_confidence(self) -> float:
        """Probability of what is given: the smaller, the more suspect."""
        return self.probability if self.given else 1 - self.probability


def missed_by_all(targets: Targets, candidates: Candidates) -> list[HardRow]:
    """Find the rows in which every candidate has a label wrong, the highest loss first.

    Args:
        targets: 0/1, ``[row, label]``.
        candidates: at least one.
    """
    wrong = np.stack([majority(own) != targets for own in candidates.values()])
    losses = np.mean([row_losses(targets, own) for own in candidates.values()], axis=0)
    votes = wrong.sum(axis=0)  # [row, label]
    rows = np.flatnonzero(wrong.any(axis=2).all(axis=0))
    return [
        HardRow(
            row=row,
            absent=_counts(votes[row] * (targets[row] == 1)),
            added=_counts(votes[row] * (targets[row] == 0)),
            loss=float(losses[row]),
        )
        for row in rows[np.argsort(-losses[rows], kind="stable")].tolist()
    ]


def disagreements(candidates: Candidates) -> list[Disagreement]:
    """Find the rows of which candidates predict different labels, the widest spread first.

    Args:
        candidates: at least one; one alone agrees with itself.
    """
    said = {name: majority(own) for name, own in candidates.items()}
    means = np.stack([own.mean(axis=0, dtype=np.float64) for own in candidates.values()])
    spreads = np.ptp(means, axis=0).sum(axis=1)
    every = np.stack(list(said.values()))
    rows = np.flatnonzero((every != every[0]).any(axis=(0, 2)))
    return [
        Disagreement(
            row=row,
            said={name: tuple(np.flatnonzero(own[row]).tolist()) for name, own in said.items()},
            spread=float(spreads[row]),
        )
        for row in rows[np.argsort(-spreads[rows], kind="stable")].tolist()
    ]


def find_label_issues(targets: Targets, probabilities: Floats) -> list[LabelIssue]:
    """Find likely label errors by confident learning, the least self-confident first.

    A label's threshold for "has it" is the mean probability of it among the rows that have it, and
    for "has it not" likewise (Northcutt, Jiang and Chuang 2021, doi:10.1613/jair.1.12125, eq. 2).
    An entry is suspect where the other side is the likelier one and reaches its threshold (eq. 1).
    That is ``find_label_issues(filter_by="confident_learning")`` of cleanlab 2.9, label by label,
    but for the labels that `can_judge` leaves out.

    Args:
        targets: 0/1, ``[row, label]``.
        probabilities: `mean_probabilities`, ``[row, label]``.
    """
    judged = np.flatnonzero(can_judge(targets, probabilities)).tolist()
    found = [
        LabelIssue(row, label, bool(targets[row, label]), float(probabilities[row, label]))
        for label in judged
        for row in _contradicted(targets[:, label] == 1, probabilities[:, label])
    ]
    return sorted(found, key=lambda suspect: (suspect.self_confidence, suspect.row, suspect.label))


def can_judge(targets: Targets, probabilities: Floats) -> npt.NDArray[np.bool_]:
    """Return whether errors of each label can be judged, ``[label]``; see `find_label_issues`.

    It takes `FEWEST` rows with it and as many without, of which candidates predict some and not
    others: who never predicts a label contradicts whoever gave it, knowing nothing.
    """
    positives = targets.sum(axis=0, dtype=np.int64)
    enough = np.minimum(positives, len(targets) - positives) >= FEWEST
    predicted = probabilities > 0.5
    return np.asarray(enough & predicted.any(axis=0) & ~predicted.all(axis=0))


def mean_probabilities(candidates: Candidates) -> Floats:
    """Average over seeds, then over candidates, so that each counts the same: ``[row, label]``."""
    means = [own.mean(axis=0, dtype=np.float64) for own in candidates.values()]
    return np.asarray(np.mean(means, axis=0))


def majority(probabilities: Probabilities) -> Predictions:
    """Return what most seeds predict at threshold 0.5; between equal halves the mean decides.

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
    of_given = np.where(targets == 1, probabilities, 1 - probabilities).astype(np.float64)
    return np.asarray(-np.log(of_given.clip(_SUREST, 1)).mean(axis=(0, 2)))


def _contradicted(given: npt.NDArray[np.bool_], probability: Floats) -> list[int]:
    """Return the rows whose given label is confidently contradicted."""
    other = np.where(given, 1 - probability, probability)
    threshold = np.where(given, (1 - probability[~given]).mean(), probability[given].mean())
    rows: list[int] = np.flatnonzero((other > 0.5) & (other >= threshold)).tolist()
    return rows


def _counts(votes: npt.NDArray[np.int64]) -> dict[int, int]:
    return {label: count for label, count in enumerate(votes.tolist()) if count}
