"""Scores with more train rows than there are, from a power law of the error."""

from collections.abc import Sequence

import numpy as np

from toxbench.util.arrays import Floats

_MIN_ERROR = 1e-3  # a score of 1 has no logarithm of its error


def extrapolate(train_rows: Sequence[int], scores: Floats, target_rows: int) -> Floats:
    """Return the scores that a power law predicts for ``target_rows``, float64 ``[...]``.

    The error, 1 - score, is fitted by ``b * n ** -c``: a straight line in the logarithms of error
    and rows, by least squares (Hestness et al. 2017, arXiv:1712.00409, without the error that
    remains with infinitely many rows, which a few sizes do not determine).

    Args:
        train_rows: at least two different numbers, ``[size]``.
        scores: in [0, 1], ``[..., size]``.
        target_rows: number of train rows.
    """
    x, y = np.log(train_rows), np.log(np.maximum(1 - scores, _MIN_ERROR))
    slopes = y @ (x - x.mean()) / np.square(x - x.mean()).sum()
    errors = np.exp(y.mean(axis=-1) + slopes * (np.log(target_rows) - x.mean()))
    return np.asarray((1 - errors).clip(0, 1))
