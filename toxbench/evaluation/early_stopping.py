"""Selection of the best epoch, and early stopping, by scores on validation rows."""

from collections.abc import Callable

import numpy as np

from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.metrics import evaluate, headline
from toxbench.records import Scores
from toxbench.util.arrays import Probabilities, Targets

_JACKKNIFE_BLOCKS = 20


def epoch_scores(targets: Targets, probabilities: Probabilities) -> Scores:
    """Compute the validation scores of an epoch, at threshold 0.5.

    Args:
        targets: 0/1 of the validation rows, ``[row, label]``.
        probabilities: of the same rows, ``[row, label]``.

    Returns:
        ``headline``, the mean of ``micro_f1`` and ``subset_accuracy``; its standard error
        ``headline_error``; ``micro_f1``, ``subset_accuracy`` and ``micro_average_precision``; and
        ``loss``, the mean binary cross-entropy in nats.
    """
    likelihood = np.where(targets == 1, probabilities, 1 - probabilities.astype(np.float64))
    scores = evaluate(targets, probabilities, [0.5] * targets.shape[1])
    return {
        "headline": headline(targets, probabilities),
        "headline_error": jackknife_error(headline, targets, probabilities),
        **{name: scores[name] for name in (*HEADLINES, "micro_average_precision")},
        "loss": float(-np.log(np.clip(likelihood, 1e-7, 1)).mean()),
    }


def jackknife_error(
    score: Callable[[Targets, Probabilities], float | None],
    targets: Targets,
    probabilities: Probabilities,
) -> float:
    """Return the standard error of a score over rows, by the delete-a-block jackknife.

    ``sqrt((g - 1) / g * sum((s_i - mean(s))^2))`` over g = 20 blocks of rows, or one block per row
    if there are fewer rows (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter
    11).

    Args:
        score: of targets and probabilities; blocks without which it is undefined are skipped.
        targets: 0/1, ``[row, label]``.
        probabilities: ``[row, label]``.

    Returns:
        0.0 if fewer than two blocks give a score.
    """
    if len(targets) < 2:
        return 0.0
    blocks = np.arange(len(targets)) % min(_JACKKNIFE_BLOCKS, len(targets))
    scores = [
        score(targets[blocks != block], probabilities[blocks != block])
        for block in range(int(blocks.max()) + 1)
    ]
    defined = np.array([value for value in scores if value is not None])
    count = len(defined)
    if count < 2:
        return 0.0
    return float(np.sqrt((count - 1) / count * np.square(defined - defined.mean()).sum()))


class EpochSelector:
    """The one-standard-error rule (Breiman et al. 1984, section 3.4.3), applied epoch by epoch.

    A small validation part cannot distinguish neighbouring epochs, and the highest score is often
    a matter of luck. Therefore the rule selects the latest epoch whose mean of micro-F1 and subset
    accuracy, the leaderboard's two headline scores, is within one standard error of the highest:
    its learning rate has decayed the furthest.
    """

    def __init__(self) -> None:
        self._highest = -1.0
        self._error = 0.0

    def should_keep(self, scores: Scores) -> bool:
        """Whether the epoch with these scores replaces the one selected before."""
        score = scores["headline"] or 0.0
        if score > self._highest:
            self._highest = score
            self._error = scores["headline_error"] or 0.0
        return score >= self._highest - self._error


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
