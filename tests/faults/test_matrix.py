"""The matrix of faults is complete."""

from fault_matrix import MATRIX


def test_no_row_is_missing() -> None:
    assert list(MATRIX) == [*range(1, 45), *range(61, 67)]
