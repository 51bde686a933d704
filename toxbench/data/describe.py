"""What the harness sees of a table, in numbers: never a comment's text."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.data.messages import shown
from toxbench.data.numbering import numbered
from toxbench.data.table import Comments, left_out


@dataclass(frozen=True, eq=False)
class Description:
    """Facts about a validated table.

    Attributes:
        supports: label -> positive rows.
        together: rows with both labels, int64 ``[label, label]``.
        labels_a_row: number of labels -> rows that have so many.
        characters: minimum, median, mean, 95th percentile and maximum length of a text.
        repeated: rows whose text stands in an earlier row as well, letter by letter.
        groups: number of groups, the largest one's rows, rows without one; None without groups.
        problems: what is legal but worth knowing, one line each.
    """

    supports: dict[str, int]
    together: npt.NDArray[np.int64]
    labels_a_row: dict[int, int]
    characters: tuple[float, float, float, float, float]
    repeated: int
    groups: tuple[int, int, int] | None
    problems: tuple[str, ...]


def describe(comments: Comments) -> Description:
    """Describe a table."""
    targets = comments.targets.astype(np.int64)
    lengths = np.fromiter(map(len, comments.texts), dtype=np.int64, count=len(comments))
    repeated = len(comments) - len(np.unique(numbered(comments.texts)))
    per_row = Counter(targets.sum(axis=1).tolist())
    return Description(
        supports=comments.supports,
        together=targets.T @ targets,
        labels_a_row=dict(sorted(per_row.items())),
        characters=(
            float(lengths.min()),
            float(np.median(lengths)),
            float(lengths.mean()),
            float(np.percentile(lengths, 95)),
            float(lengths.max()),
        ),
        repeated=repeated,
        groups=_groups(comments),
        problems=tuple(_problems(comments, repeated)),
    )


def _groups(comments: Comments) -> tuple[int, int, int] | None:
    if comments.groups is None:
        return None
    sizes = Counter(group for group in comments.groups if group is not None)
    return len(sizes), max(sizes.values(), default=0), len(comments) - sizes.total()


def _problems(comments: Comments, repeated: int) -> list[str]:
    rows = len(comments)
    problems = left_out(comments)
    for label, support in comments.supports.items():
        if support == 0:
            problems.append(f"{label} has no positive row: nothing to learn or score")
        elif support == rows:
            problems.append(f"{label} is positive in every row: nothing to learn")
        elif support < 10:
            problems.append(
                f"{label} is positive in {support} of {rows} rows: its scores mean little"
            )
    if repeated:
        problems.append(f"{repeated} rows repeat the text of an earlier row: it may leak into test")
    groups = _groups(comments)
    if groups is not None and groups[1] > 1:
        problems.append(
            f"rows come in groups, the largest with {groups[1]}: a random split puts groups on "
            "both sides"
        )
    if comments.ignored:
        problems.append(f"columns that are not used: {', '.join(map(shown, comments.ignored))}")
    return problems
