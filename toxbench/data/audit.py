"""Audit of a split for leakage and odd labels, and a description of a table."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt

from toxbench.data.duplicates import NEAR_COPY_DEFINITION, NearCopies, first_rows
from toxbench.data.groups import Numbers, group_ids, normalize_text, run_starts
from toxbench.data.protocol import Split
from toxbench.data.table import (
    TextDataset,
    doubtful_label_notes,
    ignored_column_notes,
    left_out_notes,
)
from toxbench.records import Audit, Implication, SharedGroups
from toxbench.util.arrays import Rows, Targets
from toxbench.util.many_labels import MAX_LABELS
from toxbench.util.text import list_items

MIN_POSITIVES = 5  # an implication over fewer rows proves nothing
MIN_SHARE = 0.8
_MAX_IMPLICATIONS = 1000
_CHUNK_ROWS = 1 << 14
_FEW_POSITIVES = 10  # with fewer positive rows the scores of a label are unreliable

Pair = tuple[int, int]  # a test row and the train or validation row that it copies


@dataclass(frozen=True, eq=False)
class Description:
    """Facts about a validated table.

    Attributes:
        supports: label -> number of positive rows.
        co_occurrences: number of rows with both labels, int64 ``[label, label]``; None if there
            are too many labels to show it.
        rows_by_label_count: number of labels -> number of rows with that many labels.
        text_lengths: minimum, median, mean, 95th percentile and maximum, in characters.
        repeated_rows: number of rows whose exact text is also in an earlier row.
        groups: number of groups, size of the largest, rows without a group; None without groups.
        notes: legal but notable properties, one line each.
    """

    supports: dict[str, int]
    co_occurrences: npt.NDArray[np.int64] | None
    rows_by_label_count: dict[int, int]
    text_lengths: tuple[float, float, float, float, float]
    repeated_rows: int
    groups: tuple[int, int, int] | None
    notes: tuple[str, ...]


def audit(comments: TextDataset, folds: Sequence[Split]) -> Audit:
    """Find test rows that also occur in training, and labels with suspicious values.

    A leak is between the test part of a fold and its train or validation part. Counts are over
    all folds; rows are counted from 0 in the order of the table. The result contains no text.
    """
    texts = group_ids(map(normalize_text, comments.texts))
    near = NearCopies(map(normalize_text, comments.texts))
    groups = group_ids(comments.groups or repeat(None, len(comments)))
    leaks = [_find_leaks(fold, texts, near, groups) for fold in folds]
    implications, implication_count = _implications(comments)
    return Audit(
        test_rows=sum(len(fold.test) for fold in folds),
        leaked_rows=sum(len(leak.rows) for leak in leaks),
        exact_copies=tuple(pair for leak in leaks for pair in leak.exact),
        near_copies=tuple(pair for leak in leaks for pair in leak.near),
        near_copy_definition=NEAR_COPY_DEFINITION,
        shared_groups=_shared_groups(comments, groups, [r for leak in leaks for r in leak.shared]),
        label_conflicts=tuple(_conflicts(comments, texts)),
        implications=implications,
        implication_count=implication_count,
        never_positive_labels=_labels_with(comments, 0),
        always_positive_labels=_labels_with(comments, len(comments)),
    )


def count_known_groups(comments: TextDataset, folds: Sequence[Split]) -> int:
    """Count the test rows whose group also has train or validation rows, over all folds."""
    groups = group_ids(comments.groups or repeat(None, len(comments)))
    return sum(len(_known_groups(fold, groups)) for fold in folds)


def describe(comments: TextDataset) -> Description:
    """Return counts, text lengths and notes of a table."""
    targets = comments.targets
    lengths = np.fromiter(map(len, comments.texts), dtype=np.int64, count=len(comments))
    low, median, high, longest = np.percentile(lengths, [0, 50, 95, 100]).tolist()
    repeated_rows = len(comments) - len(np.unique(group_ids(comments.texts)))
    labels_per_row = Counter(targets.sum(axis=1, dtype=np.int64).tolist())
    return Description(
        supports=comments.supports,
        co_occurrences=_co_occurrences(targets) if targets.shape[1] <= MAX_LABELS else None,
        rows_by_label_count=dict(sorted(labels_per_row.items())),
        text_lengths=(low, median, float(lengths.mean()), high, longest),
        repeated_rows=repeated_rows,
        groups=_group_counts(comments),
        notes=tuple(_notes(comments, repeated_rows)),
    )


@dataclass(frozen=True)
class _Leaks:
    """Leaks of one fold."""

    exact: list[Pair]  # with equal texts
    near: list[Pair]  # with nearly equal texts
    shared: list[int]  # test rows whose group also has train or validation rows

    @property
    def rows(self) -> set[int]:
        """Test rows with a leak of any kind."""
        return {*self.shared, *(row for row, _ in (*self.exact, *self.near))}


def _find_leaks(fold: Split, texts: Numbers, near: NearCopies, groups: Numbers) -> _Leaks:
    training_rows = np.concatenate([fold.train, fold.validation])
    exact = _pairs_with_same_number(texts, fold.test, training_rows)
    unpaired = np.setdiff1d(fold.test, [row for row, _ in exact])
    return _Leaks(exact, near.find(unpaired, training_rows), _known_groups(fold, groups))


def _known_groups(fold: Split, groups: Numbers) -> list[int]:
    """Return the test rows whose group also has train or validation rows."""
    training_rows = np.concatenate([fold.train, fold.validation])
    return [row for row, _ in _pairs_with_same_number(groups, fold.test, training_rows)]


def _pairs_with_same_number(numbers: Numbers, test: Rows, training_rows: Rows) -> list[Pair]:
    """Pair each test row with the first training row of the same number; skip number -1."""
    numbered = np.sort(test[numbers[test] >= 0])
    matches = first_rows(numbers, training_rows)[numbers[numbered]]
    pairs = zip(numbered.tolist(), matches.tolist(), strict=True)
    return [(row, match) for row, match in pairs if match >= 0]


def _shared_groups(comments: TextDataset, groups: Numbers, rows: list[int]) -> SharedGroups | None:
    if comments.groups is None:
        return None
    column = comments.columns.get("group") or "group"
    return SharedGroups(column=column, groups=len(np.unique(groups[rows])), rows=tuple(rows))


def _conflicts(comments: TextDataset, texts: Numbers) -> Iterator[tuple[int, ...]]:
    """Yield the rows of each text whose rows have different labels, where they are labelled."""
    order = np.argsort(texts, kind="stable")
    starts = np.flatnonzero(run_starts(texts[order]))
    codes = comments.codes[order]
    has_both = [np.logical_or.reduceat(codes == value, starts) for value in (0, 1)]
    differs = (has_both[0] & has_both[1]).any(axis=1)
    ends = np.append(starts, len(order))[1:]
    for start, end in zip(starts[differs].tolist(), ends[differs].tolist(), strict=True):
        yield tuple(order[start:end].tolist())


def _labels_with(comments: TextDataset, support: int) -> tuple[str, ...]:
    return tuple(label for label, count in comments.supports.items() if count == support)


def _co_occurrences(targets: Targets) -> npt.NDArray[np.int64]:
    """Return the number of rows with both labels, ``[label, label]``.

    The product of floats is fast, and exact because a chunk has fewer than 2^24 rows.
    """
    counts = np.zeros((targets.shape[1], targets.shape[1]), dtype=np.int64)
    for start in range(0, len(targets), _CHUNK_ROWS):
        chunk = targets[start : start + _CHUNK_ROWS].astype(np.float32)
        counts += (chunk.T @ chunk).astype(np.int64)
    return counts


def _implications(comments: TextDataset) -> tuple[tuple[Implication, ...], int]:
    """Return pairs of labels of which the first rarely occurs without the second, and their number.

    Sorted by the share of the first label's positive rows that have the second, highest first.
    """
    labels, supports = comments.labels, comments.targets.sum(axis=0, dtype=np.int64)
    shares = _co_occurrences(comments.targets) / np.maximum(supports, 1)[:, None]
    np.fill_diagonal(shares, 0)
    shares[supports < MIN_POSITIVES] = 0
    shares[:, supports == len(comments)] = 0  # every label implies one that every row has
    pairs = np.argwhere(shares >= MIN_SHARE)
    strongest = pairs[np.argsort(-shares[tuple(pairs.T)], kind="stable")[:_MAX_IMPLICATIONS]]
    implications = tuple(
        Implication(
            label=labels[i], implied_label=labels[j], positives=int(supports[i]),
            share=float(shares[i, j]),
        )
        for i, j in strongest.tolist()
    )  # fmt: skip
    return implications, len(pairs)


def _group_counts(comments: TextDataset) -> tuple[int, int, int] | None:
    """Return the number of groups, the largest size and the number of rows without a group."""
    if comments.groups is None:
        return None
    sizes = Counter(group for group in comments.groups if group is not None)
    return len(sizes), max(sizes.values(), default=0), len(comments) - sizes.total()


def _notes(comments: TextDataset, repeated_rows: int) -> list[str]:
    row_count = len(comments)
    notes = [*comments.notes, *left_out_notes(comments), *doubtful_label_notes(comments)]
    supports = comments.supports
    few = min(_FEW_POSITIVES, row_count)
    problems = {
        "no positive row, nothing to learn or score": [n for n in supports if not supports[n]],
        "positive in every row, nothing to learn": [
            name for name, count in supports.items() if count == row_count
        ],
        f"positive in fewer than {_FEW_POSITIVES} rows, so scores are unreliable": [
            f"{name} ({count})" for name, count in supports.items() if 0 < count < few
        ],
    }
    notes += [f"{problem}: {list_items(names)}" for problem, names in problems.items() if names]
    if repeated_rows:
        notes.append(
            f"{repeated_rows} rows repeat the text of an earlier row: it may leak into test"
        )
    groups = _group_counts(comments)
    if groups is not None and groups[1] > 1:
        notes.append(
            f"rows come in groups, the largest with {groups[1]}: a random split puts groups on "
            "both sides"
        )
    return notes + ignored_column_notes(comments)
