"""Types of the arrays that stages exchange; comments give their shapes."""

import numpy as np
import numpy.typing as npt

UNLABELLED = 3  # code of a label that nobody gave

Targets = npt.NDArray[np.uint8]  # [row, label], 0 or 1
Codes = npt.NDArray[np.uint8]  # [row, label], 0, 1, or UNLABELLED
Rows = npt.NDArray[np.int64]  # row numbers of the table, counted from 0
Probabilities = npt.NDArray[np.floating]  # [row, label], 0 to 1
Predictions = npt.NDArray[np.uint8]  # [row, label], 0 or 1
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float32]  # [..., row, count] of COUNTS
Members = npt.NDArray[np.bool_]  # [row], whether a row belongs to a slice


def known_targets(codes: Codes) -> Targets:
    """Return the targets, 0 where a row is not labelled; ``codes`` itself if all are."""
    labelled = codes != UNLABELLED
    return codes if labelled.all() else codes * labelled


def hide_unlabelled(
    probabilities: npt.NDArray[np.float32], codes: Codes
) -> npt.NDArray[np.float32]:
    """Return the probabilities with 0 where a row is not labelled.

    A target of 0 with probability 0 does not change a score that ignores true negatives.
    """
    hidden: npt.NDArray[np.float32] = probabilities * (codes != UNLABELLED)
    return hidden
