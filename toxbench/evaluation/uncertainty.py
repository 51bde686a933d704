"""How sure a score is."""

from collections.abc import Callable

import numpy as np

from toxbench.data.table import Targets
from toxbench.evaluation.metrics import Probabilities

_BLOCKS = 20


def jackknife_error(
    score: Callable[[Targets, Probabilities], float | None],
    targets: Targets,
    probabilities: Probabilities,
) -> float:
    """Return the standard error of a score over rows, by the delete-a-block jackknife.

    ``sqrt((g - 1) / g * sum((s_i - mean(s))^2))`` over g = 20 blocks of rows, or one for each row
    where there are fewer (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 11).

    Args:
        score: of targets and probabilities; blocks without which it is undefined are skipped.
        targets: 0/1, ``[row, label]``.
        probabilities: ``[row, label]``.

    Returns:
        0.0 where fewer than two blocks give a score.
    """
    if len(targets) < 2:
        return 0.0
    blocks = np.arange(len(targets)) % min(_BLOCKS, len(targets))
    scores = [
        score(targets[blocks != block], probabilities[blocks != block])
        for block in range(int(blocks.max()) + 1)
    ]
    known = np.array([value for value in scores if value is not None])
    if len(known) < 2:
        return 0.0
    return float(np.sqrt((len(known) - 1) / len(known) * np.square(known - known.mean()).sum()))
