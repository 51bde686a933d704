"""What makes a split flatter a model, and what is odd about its labels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt

from toxbench.data.duplicates import (
    DEFINITION,
    NearCopies,
    Numbers,
    first_rows,
    group_ids,
    run_starts,
)
from toxbench.data.groups import plain_text
from toxbench.data.protocol import Split
from toxbench.data.readers import safe_name
from toxbench.data.table import TextDataset, left_out
from toxbench.records import Audit, Implication, SharedGroups
from toxbench.util.arrays import Rows

LEAST_POSITIVES = 5  # an implication over fewer rows is an anecdote
LEAST_SHARE = 0.8

Pair = tuple[int, int]


@dataclass(frozen=True)
class _Leaks:
    """What one fold leaks."""

    exact: list[Pair]
    near: list[Pair]
    shared: list[int]

    @property
    def rows(self) -> set[int]:
        """Test rows with a leak of any kind."""
        return {*self.shared, *(row for row, _ in (*self.exact, *self.near))}


def audit(comments: TextDataset, folds: Sequence[Split]) -> Audit:
    """Look for test rows that training has seen in some form, and for odd labels.

    A leak is between a fold's test part and its train or validation part. Counts are over all
    folds; rows are counted from 0 in the order of the table. The result holds no text.
    """
    texts = group_ids(map(plain_text, comments.texts))
    near = NearCopies(map(plain_text, comments.texts))
    groups = group_ids(comments.groups or repeat(None, len(comments)))
    leaks = [_leaks(fold, texts, near, groups) for fold in folds]
    return Audit(
        test_rows=sum(len(fold.test) for fold in folds),
        leaked_rows=sum(len(fold.rows) for fold in leaks),
        exact_copies=tuple(pair for fold in leaks for pair in fold.exact),
        near_copies=tuple(pair for fold in leaks for pair in fold.near),
        near_copy_definition=DEFINITION,
        shared_groups=_shared(comments, groups, [row for fold in leaks for row in fold.shared]),
        label_conflicts=tuple(_conflicts(comments, texts)),
        implications=tuple(_implications(comments)),
        never_positive_labels=tuple(label for label, n in comments.supports.items() if n == 0),
        always_positive_labels=tuple(
            label for label, n in comments.supports.items() if n == len(comments)
        ),
    )


def _leaks(fold: Split, texts: Numbers, near: NearCopies, groups: Numbers) -> _Leaks:
    kept = np.concatenate([fold.train, fold.validation])
    exact = _same(texts, fold.test, kept)
    other = np.setdiff1d(fold.test, [row for row, _ in exact])
    shared = [row for row, _ in _same(groups, fold.test, kept)]
    return _Leaks(exact, near.among(other, kept), shared)


def _same(numbers: Numbers, test: Rows, kept: Rows) -> list[Pair]:
    """Return each test row whose number a kept row has, and the first such row."""
    group_ids = np.sort(test[numbers[test] >= 0])
    others = first_rows(numbers, kept)[numbers[group_ids]]
    pairs = zip(group_ids.tolist(), others.tolist(), strict=True)
    return [(row, other) for row, other in pairs if other >= 0]


def _shared(comments: TextDataset, groups: Numbers, rows: list[int]) -> SharedGroups | None:
    if comments.groups is None:
        return None
    column = comments.columns.get("group") or "group"
    return SharedGroups(column=column, groups=len(np.unique(groups[rows])), rows=tuple(rows))


def _conflicts(comments: TextDataset, texts: Numbers) -> Iterator[tuple[int, ...]]:
    """Yield the rows of every text that has rows with different labels."""
    order = np.argsort(texts, kind="stable")
    starts = np.flatnonzero(run_starts(texts[order]))
    targets = comments.targets[order]
    differs = (np.maximum.reduceat(targets, starts) != np.minimum.reduceat(targets, starts)).any(1)
    ends = np.append(starts, len(order))[1:]
    for start, end in zip(starts[differs].tolist(), ends[differs].tolist(), strict=True):
        yield tuple(order[start:end].tolist())


def _implications(comments: TextDataset) -> list[Implication]:
    """Return which label (nearly) always comes with which other one, the surest first."""
    targets = comments.targets.astype(np.int64)
    together, supports = targets.T @ targets, targets.sum(axis=0)
    found = [
        Implication(
            label=label,
            implied_label=implied,
            positives=int(supports[i]),
            share=float(together[i, j] / supports[i]),
        )
        for i, label in enumerate(comments.labels)
        for j, implied in enumerate(comments.labels)
        if i != j
        and supports[i] >= LEAST_POSITIVES
        and supports[j] < len(comments)  # every label implies one that every row has
        and together[i, j] / supports[i] >= LEAST_SHARE
    ]
    return sorted(found, key=lambda found: -found.share)


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


def describe(comments: TextDataset) -> Description:
    """Describe a table."""
    targets = comments.targets.astype(np.int64)
    lengths = np.fromiter(map(len, comments.texts), dtype=np.int64, count=len(comments))
    repeated = len(comments) - len(np.unique(group_ids(comments.texts)))
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


def _groups(comments: TextDataset) -> tuple[int, int, int] | None:
    if comments.groups is None:
        return None
    sizes = Counter(group for group in comments.groups if group is not None)
    return len(sizes), max(sizes.values(), default=0), len(comments) - sizes.total()


def _problems(comments: TextDataset, repeated: int) -> list[str]:
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
        problems.append(f"columns that are not used: {', '.join(map(safe_name, comments.ignored))}")
    return problems
