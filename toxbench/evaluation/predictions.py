"""From probabilities to yes and no. Imports nothing heavy: stored cells are read with it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating]
Predictions = npt.NDArray[np.uint8]


def predict(probabilities: Probabilities, thresholds: Sequence[float]) -> Predictions:
    """Return 0/1 predictions ``[row, label]``: 1 where the probability is above the threshold."""
    return (probabilities > np.asarray(thresholds)).astype(np.uint8)
