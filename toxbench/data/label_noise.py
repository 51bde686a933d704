"""Upper bounds of the scores on a table in which copies of a text have different labels."""

from dataclasses import dataclass

import numpy as np

from toxbench.data.duplicates import NearCopies
from toxbench.data.groups import Numbers, group_ids, normalize_text, relabel_by_first_seen
from toxbench.data.table import TextDataset
from toxbench.util.arrays import Targets


@dataclass(frozen=True)
class ScoreBounds:
    """The highest scores of a model that gives all copies of a text the same labels.

    Attributes:
        rows: number of rows over which the scores are taken.
        micro_f1: 0 if no row is positive.
        subset_accuracy: share of rows.
    """

    rows: int
    micro_f1: float
    subset_accuracy: float


def label_noise(comments: TextDataset) -> tuple[ScoreBounds, ScoreBounds] | None:
    """Return the bounds over all rows, and over the rows that have a copy.

    Copies have equal or nearly equal texts; see `toxbench.data.duplicates`.

    Returns:
        None if no row has a copy.
    """
    texts = _number_copies(comments)
    is_copied = np.bincount(texts)[texts] > 1
    if not is_copied.any():
        return None
    targets = comments.targets
    return score_bounds(targets, texts), score_bounds(targets[is_copied], texts[is_copied])


def score_bounds(targets: Targets, texts: Numbers) -> ScoreBounds:
    """Return the highest scores of predictions that depend on the text alone.

    Subset accuracy is highest if each text gets the most frequent label set of its rows. The
    micro-F1 F is highest if a text gets each label whose share of positive rows exceeds F / 2
    (Lipton et al. 2014, arXiv:1402.1892); F is the fixed point of this rule, which is reached from
    below.

    Args:
        targets: 0/1, ``[row, label]``.
        texts: number of each row's text, ``[row]``; equal for copies.
    """
    order = np.argsort(texts, kind="stable")
    starts = np.flatnonzero(np.diff(texts[order], prepend=-1))
    rows = np.diff(starts, append=len(order))[:, None]
    positives = np.add.reduceat(targets[order].astype(np.int64), starts)  # [text, label]
    sets, counts = np.unique(np.column_stack([texts, targets]), axis=0, return_counts=True)
    most_frequent = np.maximum.reduceat(counts, np.flatnonzero(np.diff(sets[:, 0], prepend=-1)))
    f1, previous = 0.0, -1.0
    while f1 > previous:
        is_predicted = positives > f1 / 2 * rows
        predicted = (is_predicted * rows).sum()
        correct = positives[is_predicted].sum()
        previous, f1 = f1, 2 * correct / max(1, predicted + positives.sum())
    return ScoreBounds(len(targets), float(f1), float(most_frequent.sum() / len(targets)))


def _number_copies(comments: TextDataset) -> Numbers:
    """Number the texts; copies, and rows that a chain of copies connects, get one number."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    texts = group_ids(map(normalize_text, comments.texts))
    rows = np.arange(len(texts))
    near = NearCopies(map(normalize_text, comments.texts)).find(rows, rows)
    pairs = np.array(near, dtype=np.int64).reshape(-1, 2)
    edges = (np.ones(len(pairs), np.int8), (texts[pairs[:, 0]], texts[pairs[:, 1]]))
    count = texts.max(initial=-1) + 1
    _, components = connected_components(coo_array(edges, shape=(count, count)), directed=False)
    numbers = components[texts].astype(np.int64)
    return relabel_by_first_seen(np.argsort(numbers, kind="stable"), numbers)
