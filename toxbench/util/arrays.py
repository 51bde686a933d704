"""TODO."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    pass


Targets = npt.NDArray[np.uint8]


Rows = npt.NDArray[np.int64]


Probabilities = npt.NDArray[np.floating]

Predictions = npt.NDArray[np.uint8]


Floats = npt.NDArray[np.float64]

Counts = npt.NDArray[np.float32]  # [..., row, count] of COUNTS
