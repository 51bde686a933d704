"""Groups of rows that a grouped split keeps together: a shared group or equal texts."""

import unicodedata

import numpy as np
import numpy.typing as npt

from toxbench.data.duplicates import group_ids, relabel_by_first_seen
from toxbench.data.table import TextDataset


def normalize_text(text: str) -> str:
    """Return a text in NFKC form, case-folded, with single spaces; equal comments compare equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def row_groups(comments: TextDataset) -> npt.NDArray[np.int64]:
    """Number the groups of rows that must stay in one part of a split.

    Two rows are in one group if they have the same value in the table's group column, if their
    texts are equal after `normalize_text`, or if a chain of such rows connects them. Any other
    row is a group by itself.

    Returns:
        int64 ``[row]``: numbers from 0, in the order of each group's first row.
    """
    from scipy.sparse import coo_array  # imported here: printing a leaderboard does not need it
    from scipy.sparse.csgraph import connected_components

    texts = group_ids(map(normalize_text, comments.texts))
    if comments.groups is None:
        return texts
    groups = group_ids(comments.groups)
    grouped = np.flatnonzero(groups >= 0)
    # A graph of texts and groups, with an edge for every row that has both.
    text_count = texts.max(initial=-1) + 1
    edges = (np.ones(len(grouped), np.int8), (texts[grouped], text_count + groups[grouped]))
    nodes = text_count + groups.max(initial=-1) + 1
    _, components = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)
    row_components = components[texts].astype(np.int64)
    return relabel_by_first_seen(np.argsort(row_components, kind="stable"), row_components)
