"""Scores with more train rows than there are, from a power law of the error."""

import numpy as np
import numpy.typing as npt

from toxbench.util.arrays import Floats

SIZES_NEEDED = 3  # with two, no observation is left to check the forecast with
_MIN_ERROR = 1e-3  # a score of 1 has no logarithm of its error


def extrapolate(train_rows: npt.ArrayLike, scores: Floats, target_rows: float) -> Floats:
    """Return the score that a power law predicts for another number of train rows, in [0, 1].

    The error, 1 - score, is fitted by ``b * n ** -c``: a straight line in the logarithms of error
    and rows, by least squares (Hestness et al. 2017, arXiv:1712.00409, equation 1, without the
    constant error that remains with infinitely many rows, which a few sizes do not determine).

    Args:
        train_rows: at least two different numbers, ``[size]``.
        scores: in [0, 1], ``[..., size]``.
        target_rows: number of train rows to predict for.

    Returns:
        float64 ``[...]``.
    """
    x, y = np.log(np.asarray(train_rows)), np.log(np.maximum(1 - scores, _MIN_ERROR))
    distances = x - x.mean()
    slopes = y @ distances / (distances @ distances)
    errors = np.exp(y.mean(axis=-1) + slopes * (np.log(target_rows) - x.mean()))
    return np.asarray((1 - errors).clip(0, 1))
