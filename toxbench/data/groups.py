"""Rows that belong together, because they share a group or say the same."""

import unicodedata
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

from toxbench.data.table import Comments


def plain_text(text: str) -> str:
    """Fold what does not make two comments different: NFKC, case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def row_groups(comments: Comments) -> npt.NDArray[np.int64]:
    """Number the groups of rows that must not be torn apart.

    Two rows are in one group if the table's group column says so, or if their texts are equal
    after `plain_text`, or through others in between. A row without a group and with a text of its
    own is a group by itself.

    Returns:
        int64 ``[row]``: numbers from 0, in the order of each group's first row.
    """
    parents = list(range(len(comments)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    first: dict[Hashable, int] = {}
    groups = comments.groups or (None,) * len(comments)
    for row, (text, group) in enumerate(zip(comments.texts, groups, strict=True)):
        keys: list[Hashable] = [("text", plain_text(text))]
        keys += [] if group is None else [("group", group)]
        for key in keys:
            parents[root(row)] = root(first.setdefault(key, row))
    roots = [root(row) for row in range(len(comments))]
    numbers = {number: place for place, number in enumerate(dict.fromkeys(roots))}
    return np.array([numbers[number] for number in roots], dtype=np.int64)
