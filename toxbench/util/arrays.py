"""Types of the arrays that stages exchange; comments give their shapes."""

import numpy as np
import numpy.typing as npt

Targets = npt.NDArray[np.uint8]  # [row, label], 0 or 1
Rows = npt.NDArray[np.int64]  # row numbers of the table, counted from 0
Probabilities = npt.NDArray[np.floating]  # [row, label], 0 to 1
Predictions = npt.NDArray[np.uint8]  # [row, label], 0 or 1
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float32]  # [..., row, count] of COUNTS
Members = npt.NDArray[np.bool_]  # [row], whether a row belongs to a slice
