"""A table of tokens that a tiny backbone learns in seconds."""

import numpy as np
import pytest

from toxbench.data.tokenization import Tokens

ROWS, LABELS = 48, 3


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    """Rows that repeat one token: 10 if the row's first target is 1, else 11."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 12, size=ROWS)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.concatenate([np.full(n, 10 + row % 2) for row, n in enumerate(lengths)])
    windows, cut_tokens = np.arange(ROWS + 1), np.zeros(ROWS, dtype=np.int32)
    return Tokens(ids.astype(np.int32), offsets, windows, 0, cut_tokens)


@pytest.fixture(scope="module")
def targets() -> np.ndarray:
    values = np.zeros((ROWS, LABELS), dtype=np.uint8)
    values[::2, 0] = 1
    values[::2, 1] = 1
    return values
