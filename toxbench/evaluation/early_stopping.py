"""Which epoch to keep, decided on validation rows."""

import numpy as np

from toxbench.evaluation.bootstrap import jackknife_error
from toxbench.evaluation.metrics import evaluate, headline
from toxbench.records import Scores
from toxbench.util.arrays import Probabilities, Targets


def epoch_scores(targets: Targets, probabilities: Probabilities) -> Scores:
    """Compute the few scores that are followed from epoch to epoch, at threshold 0.5.

    Args:
        targets: 0/1 of the validation rows, ``[row, label]``.
        probabilities: of the same rows, ``[row, label]``.

    Returns:
        ``headline``, the mean of ``micro_f1`` and ``subset_accuracy``, with its standard error
        ``headline_error``; both of them, ``micro_average_precision``, and ``loss``, the mean
        binary cross-entropy in nats.
    """
    likelihood = np.where(targets == 1, probabilities, 1 - probabilities.astype(np.float64))
    scores = evaluate(targets, probabilities, [0.5] * targets.shape[1])
    return {
        "headline": headline(targets, probabilities),
        "headline_error": jackknife_error(headline, targets, probabilities),
        "micro_f1": scores["micro_f1"],
        "subset_accuracy": scores["subset_accuracy"],
        "micro_average_precision": scores["micro_average_precision"],
        "loss": float(-np.log(np.clip(likelihood, 1e-7, 1)).mean()),
    }


class EpochSelector:
    """The one-standard-error rule (Breiman et al. 1984, section 3.4.3), epoch by epoch.

    A small validation part cannot tell neighbouring epochs apart, and taking the highest score
    mostly takes the luckiest one. So the latest epoch is kept whose mean of micro-F1 and subset
    accuracy, the leaderboard's two headline scores, is within one standard error of the highest:
    its learning rate has decayed the furthest.
    """

    def __init__(self) -> None:
        self._highest = -1.0
        self._error = 0.0

    def keep(self, scores: Scores) -> bool:
        """Whether this epoch takes the place of the one that was kept before."""
        score = scores["headline"] or 0.0
        if score > self._highest:
            self._highest = score
            self._error = scores["headline_error"] or 0.0
        return score >= self._highest - self._error


class Patience:
    """Ends a training after so many looks in a row without a higher headline score."""

    def __init__(self, num_evaluations: int) -> None:
        """Begin.

        Args:
            looks: 0: it never ends.
        """
        self._looks = num_evaluations
        self._highest = -1.0
        self._in_vain = 0

    def should_stop(self, scores: Scores) -> bool:
        """Whether the training ends with the look that gave these scores."""
        score = scores.get("headline") or 0.0
        self._in_vain = 0 if score > self._highest else self._in_vain + 1
        self._highest = max(self._highest, score)
        return 0 < self._looks <= self._in_vain
