"""The matrix of faults is complete."""

from fault_matrix import MATRIX


def test_no_row_is_missing() -> None:
    assert list(MATRIX) == list(range(1, len(MATRIX) + 1))
    assert len(MATRIX) == 70
