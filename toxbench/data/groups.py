"""Rows that belong together, because they share a group or say the same."""

import unicodedata

import numpy as np
import numpy.typing as npt

from toxbench.data.duplicates import group_ids, relabel_by_first_seen
from toxbench.data.table import TextDataset


def plain_text(text: str) -> str:
    """Fold what does not make two comments different: NFKC, case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def row_groups(comments: TextDataset) -> npt.NDArray[np.int64]:
    """Number the groups of rows that must not be torn apart.

    Two rows are in one group if the table's group column says so, or if their texts are equal
    after `plain_text`, or through others in between. A row without a group and with a text of its
    own is a group by itself.

    Returns:
        int64 ``[row]``: numbers from 0, in the order of each group's first row.
    """
    from scipy.sparse import coo_array  # a kept leaderboard is printed without
    from scipy.sparse.csgraph import connected_components

    texts = group_ids(map(plain_text, comments.texts))
    if comments.groups is None:
        return texts
    groups = group_ids(comments.groups)
    grouped = np.flatnonzero(groups >= 0)
    # A text and a group are linked by every row that has both.
    size = texts.max(initial=-1) + 1
    links = (np.ones(len(grouped), dtype=np.int8), (texts[grouped], size + groups[grouped]))
    points = size + groups.max(initial=-1) + 1
    _, parts = connected_components(coo_array(links, shape=(points, points)), directed=False)
    own = parts[texts].astype(np.int64)
    return relabel_by_first_seen(np.argsort(own, kind="stable"), own)
