"""Selection of the labels that a table shows when there are too many for a row each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_LABELS = 30  # with a row each
_EXTREMES = 10


@dataclass(frozen=True)
class ShownLabels:
    """The labels with a row.

    Attributes:
        places: of the labels among all labels, counted from 0, in the order of the rows.
        notes: which labels are shown, and the supports of all; empty if all labels are shown.
    """

    places: tuple[int, ...]
    notes: tuple[str, ...] = ()


def select_labels(supports: Sequence[int], rows: int) -> ShownLabels:
    """Select all labels, or of more than `MAX_LABELS` the most and the least frequent.

    Args:
        supports: positive rows of each label.
        rows: number of rows. A label that none or all of them have is constant, and not selected.
    """
    if len(supports) <= MAX_LABELS:
        return ShownLabels(tuple(range(len(supports))))
    counts = np.array(supports)
    varied = np.flatnonzero((counts > 0) & (counts < rows))
    order = varied[np.argsort(-counts[varied], kind="stable")].tolist()
    shown = tuple(dict.fromkeys([*order[:_EXTREMES], *order[-_EXTREMES:]]))
    low, first, middle, third, high = np.quantile(counts, [0, 0.25, 0.5, 0.75, 1]).tolist()
    note = (
        f"{len(shown)} of {len(supports)} labels: the most and the least frequent, without the "
        f"{len(supports) - len(varied)} constant ones. Positive rows of a label: {low:.0f} to "
        f"{high:.0f}, quartiles {first:.0f}, {middle:.0f} and {third:.0f}."
    )
    return ShownLabels(shown, (note,))
