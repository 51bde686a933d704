"""Scores of an epoch on validation rows, and early stopping by them."""

import numpy as np

from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.metrics import evaluate, headline
from toxbench.records import Scores
from toxbench.util.arrays import Probabilities, Targets


def epoch_scores(targets: Targets, probabilities: Probabilities) -> Scores:
    """Compute the validation scores of an epoch, at threshold 0.5.

    Args:
        targets: 0/1 of the validation rows, ``[row, label]``.
        probabilities: of the same rows, ``[row, label]``.

    Returns:
        ``headline``, the mean of ``micro_f1`` and ``subset_accuracy``; these two;
        ``micro_average_precision``; and ``loss``, the mean binary cross-entropy in nats.
    """
    likelihood = np.where(targets == 1, probabilities, 1 - probabilities.astype(np.float64))
    scores = evaluate(targets, probabilities, [0.5] * targets.shape[1])
    return {
        "headline": headline(targets, probabilities),
        **{name: scores[name] for name in (*HEADLINES, "micro_average_precision")},
        "loss": float(-np.log(np.clip(likelihood, 1e-7, 1)).mean()),
    }


class Patience:
    """Ends a training after several evaluations in a row without a higher headline score."""

    def __init__(self, num_evaluations: int) -> None:
        """Start counting.

        Args:
            num_evaluations: that may pass without improvement; 0 disables early stopping.
        """
        self._limit = num_evaluations
        self._highest = -1.0
        self._without_improvement = 0

    def should_stop(self, scores: Scores) -> bool:
        """Whether the training ends after the evaluation with these scores."""
        score = scores.get("headline") or 0.0
        is_improved = score > self._highest
        self._without_improvement = 0 if is_improved else self._without_improvement + 1
        self._highest = max(self._highest, score)
        return 0 < self._limit <= self._without_improvement
