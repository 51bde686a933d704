"""Folds drawn at random, stratified by labels, or with every group in one part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit
from sklearn.model_selection import KFold, train_test_split

from toxbench.data.groups import row_groups
from toxbench.data.protocol import Split
from toxbench.data.table import TextDataset
from toxbench.errors import DataError
from toxbench.records import Part
from toxbench.settings import SplitSettings
from toxbench.util.arrays import Rows, Targets
from toxbench.util.text import list_items

# Assignments of groups to parts that are compared: many for few groups, which are hard to balance,
# and fewer for many groups, so that drawing takes seconds at most.
_MAX_ASSIGNMENTS, _MIN_ASSIGNMENTS, _MAX_PLACEMENTS = 200, 3, 40_000

_UNEVEN_RATIO = 3  # of the largest and the smallest number of test rows, for a warning
_MAX_FOLDS_NAMED = 4  # in a warning

# Consequence for a label if no row of the part is positive.
_WITHOUT_POSITIVES: Mapping[Part, str] = {"train": "nothing to learn", "test": "not scored there"}

# (table, rows, fraction, seed) -> (remaining rows, held-out rows)
HoldOut = Callable[[TextDataset, Rows, float, int], tuple[Rows, Rows]]
# (table, number of folds, seed) -> test rows of each fold
KFolds = Callable[[TextDataset, int, int], list[Rows]]


def draw_folds(comments: TextDataset, settings: SplitSettings | None = None) -> tuple[Split, ...]:
    """Split a table into train, validation and test rows.

    A single fold tests ``test_size`` of the rows; with K folds every row is tested exactly once.
    Validation rows are drawn out of the train rows by the same method, so that the test rows do
    not depend on the size of the validation part.

    Raises:
        DataError: there are too few rows or groups; train or test would be empty.
    """
    settings = settings or SplitSettings()
    rows = np.arange(len(comments), dtype=np.int64)
    hold_out, seed = _HOLD_OUT[settings.split], settings.split_seed
    try:
        if settings.folds == 1:
            pairs = [hold_out(comments, rows, settings.test_size, seed)]
        else:
            tests = _K_FOLDS[settings.split](comments, settings.folds, seed)
            pairs = [(np.setdiff1d(rows, test), test) for test in tests]
        folds = tuple(hold_out_validation(comments, train, test, settings) for train, test in pairs)
    except ValueError as error:
        raise DataError(_too_few_rows(len(rows), settings)) from error
    if not all(len(fold.train) and len(fold.test) for fold in folds):
        raise DataError(_too_few_rows(len(rows), settings))
    return folds


def hold_out_validation(
    comments: TextDataset, train: Rows, test: Rows, settings: SplitSettings
) -> Split:
    """Draw validation rows out of the train rows, by the method of ``settings.split``.

    Raises:
        ValueError: there are too few rows or groups for both parts.
    """
    validation = train[:0]
    if settings.validation_size > 0:
        hold_out = _HOLD_OUT[settings.split]
        train, validation = hold_out(comments, train, settings.validation_size, settings.split_seed)
        if not (len(train) and len(validation)):
            raise ValueError("one of the parts is empty")
    return Split(*(part.astype(np.int64) for part in (train, validation, test)))


def train_subsets(
    comments: TextDataset, folds: Sequence[Split], fraction: float, settings: SplitSettings
) -> tuple[Split, ...]:
    """Return folds with a fraction of their train rows, in (0, 1], and the same other rows.

    The rows of a smaller fraction are among those of a larger one. They are random after the first
    ones, which have a positive row of each label. A grouped split takes whole groups.
    """
    is_grouped = settings.split == "grouped"
    groups = row_groups(comments) if is_grouped else np.arange(len(comments))
    subsets = []
    for fold in folds:
        units = np.unique(groups[fold.train], return_inverse=True)[1]  # [row]
        order = _nested_order(units, comments.targets[fold.train], settings.split_seed)
        ends = np.cumsum(np.bincount(units)[order])
        most_rows = round(fraction * len(units), 6)  # 0.29 * 100 is less than 29
        count = max(1, np.searchsorted(ends, most_rows, side="right"))
        subsets.append(replace(fold, train=fold.train[np.isin(units, order[:count])]))
    return tuple(subsets)


def fold_warnings(comments: TextDataset, folds: Sequence[Split]) -> list[str]:
    """Return warnings about labels that are too rare for the folds, and folds of uneven size.

    Labels without any positive row are not reported.
    """
    supports = {label: count for label, count in comments.supports.items() if count}
    rare = [f"{label} ({count})" for label, count in supports.items() if count < len(folds)]
    warnings = (
        [f"fewer positive rows than the {len(folds)} folds: {list_items(rare)}"] if rare else []
    )
    for part, consequence in _WITHOUT_POSITIVES.items():
        labels = [
            f"{label}{_format_folds(numbers, folds)}"
            for label, numbers in _folds_without_positives(comments, folds, part).items()
            if label in supports and numbers
        ]
        if labels:
            warnings.append(f"no positive {part} row, {consequence}: {list_items(labels)}")
    sizes = [len(fold.test) for fold in folds]
    if max(sizes) > _UNEVEN_RATIO * min(sizes):
        warnings.append(
            f"the folds test {min(sizes)} to {max(sizes)} rows each, because some groups are "
            "large; see the groups with: toxbench data check"
        )
    return warnings


def _nested_order(units: Rows, targets: Targets, seed: int) -> Rows:
    """Return a random order of the units of rows, in which a positive one of each label leads."""
    positives = np.zeros((units.max() + 1, targets.shape[1]), dtype=bool)
    np.logical_or.at(positives, units, targets == 1)
    order = np.random.default_rng(seed).permutation(len(positives))
    shuffled = positives[order][:, positives.any(axis=0)]
    first = np.unique(shuffled.argmax(axis=0))[::-1]  # rare labels begin late, and are the first
    return np.concatenate([order[first], np.delete(order, first)])


def _folds_without_positives(
    comments: TextDataset, folds: Sequence[Split], part: Part
) -> dict[str, list[int]]:
    """Return label -> numbers of the folds without a positive row in the part."""
    has_positive = np.array([comments.targets[fold.part(part)].any(axis=0) for fold in folds])
    return {
        label: np.flatnonzero(~has_positive[:, i]).tolist()
        for i, label in enumerate(comments.labels)
    }


def _format_folds(numbers: Sequence[int], folds: Sequence[Split]) -> str:
    if len(folds) == 1:
        return ""
    if len(numbers) > _MAX_FOLDS_NAMED:
        return f" ({len(numbers)} of {len(folds)} folds)"
    return f" (fold {' '.join(map(str, numbers))})"


def _too_few_rows(count: int, settings: SplitSettings) -> str:
    parts = f"{settings.folds} folds" if settings.folds > 1 else f"test {settings.test_size:g}"
    groups = ", or their groups," if settings.split == "grouped" else ""
    rows = "1 row is" if count == 1 else f"{count} rows{groups} are"
    return (
        f"{rows} too few to split ({parts}, validation {settings.validation_size:g} of the rest); "
        "bring more rows, or change --folds, --test-size or --validation-size"
    )


def _random(comments: TextDataset, rows: Rows, size: float, seed: int) -> tuple[Rows, Rows]:
    """Hold out rows at random, with the function that the original study used."""
    remaining, held_out = train_test_split(rows, test_size=size, random_state=seed)
    return remaining, held_out


def _stratified(comments: TextDataset, rows: Rows, size: float, seed: int) -> tuple[Rows, Rows]:
    """Hold out rows with the share of every label preserved (Sechidis et al. 2011)."""
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=size, random_state=seed)
    remaining, held_out = next(splitter.split(rows, comments.targets[rows]))
    return rows[remaining], rows[held_out]


def _grouped(comments: TextDataset, rows: Rows, size: float, seed: int) -> tuple[Rows, Rows]:
    """Hold out whole groups, with the size and the shares of labels approximated."""
    is_held_out = _best_assignment(comments, rows, np.array([1 - size, size]), seed) == 1
    return rows[~is_held_out], rows[is_held_out]


def _random_folds(comments: TextDataset, folds: int, seed: int) -> list[Rows]:
    splitter = KFold(folds, shuffle=True, random_state=seed)
    return [test for _, test in splitter.split(comments.targets)]


def _stratified_folds(comments: TextDataset, folds: int, seed: int) -> list[Rows]:
    splitter = MultilabelStratifiedKFold(folds, shuffle=True, random_state=seed)
    return [test for _, test in splitter.split(comments.targets, comments.targets)]


def _grouped_folds(comments: TextDataset, folds: int, seed: int) -> list[Rows]:
    rows = np.arange(len(comments), dtype=np.int64)
    fold_of_row = _best_assignment(comments, rows, np.full(folds, 1 / folds), seed)
    return [rows[fold_of_row == fold] for fold in range(folds)]


def _best_assignment(
    comments: TextDataset, rows: Rows, shares: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """Assign whole groups to parts; return the part of each row, ``[row]``.

    Groups are assigned one after another, in a random order that favours large ones, to the part
    that is then nearest to its share of rows and of every label. The best of several random
    orders is returned.

    Args:
        comments: the table.
        rows: the rows to assign, ``[row]``.
        shares: fraction of the rows for each part, ``[part]``.
        seed: of the random orders.

    Raises:
        ValueError: there are fewer groups than parts.
    """
    group_of_row = np.unique(row_groups(comments)[rows], return_inverse=True)[1]
    ones_and_labels = np.column_stack([np.ones(len(rows)), comments.targets[rows]])
    totals = np.zeros((group_of_row.max() + 1, ones_and_labels.shape[1]))
    np.add.at(totals, group_of_row, ones_and_labels)
    if len(totals) < len(shares):
        raise ValueError("fewer groups than parts")
    # Every column sums to 1, so that a rare label has the same weight as the number of rows.
    weights = totals / np.maximum(totals.sum(axis=0), 1)
    rng = np.random.default_rng(seed)
    count = max(_MIN_ASSIGNMENTS, min(_MAX_ASSIGNMENTS, _MAX_PLACEMENTS // len(weights)))
    assignments = [_assign(weights, shares, rng) for _ in range(count)]
    return min(assignments, key=lambda assignment: assignment[0])[1][group_of_row]


def _assign(
    weights: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, npt.NDArray[np.int64]]:
    """Assign each group to a part in a random order; no part stays empty.

    Args:
        weights: of each group, ``[group, column]``: its share of all rows and of each label.
        shares: fraction of the rows for each part, ``[part]``.
        rng: draws the order.

    Returns:
        The deviation from the shares, and the part of each group, ``[group]``.
    """
    filled = np.zeros((len(shares), weights.shape[1]))
    target = shares[:, None]
    deviation = np.square(filled / target - 1)
    parts = np.zeros(len(weights), dtype=np.int64)
    is_empty = np.ones(len(shares), dtype=bool)
    empty_count = len(shares)
    order = np.argsort(
        -(weights[:, 0] + weights.sum(axis=1)) * rng.exponential(size=len(weights)), kind="stable"
    )
    for remaining, group in zip(range(len(order), 0, -1), order, strict=True):
        new_filled = filled + weights[group]
        new_deviation = new_filled / target
        new_deviation -= 1
        np.square(new_deviation, out=new_deviation)
        # Change of the sum of squared relative deviations if the group went to each part.
        cost = ((new_deviation - deviation) * target).sum(axis=1)
        if remaining == empty_count:  # the last groups go to the empty parts
            cost[~is_empty] = np.inf
        part = int(cost.argmin())
        parts[group] = part
        filled[part], deviation[part] = new_filled[part], new_deviation[part]
        if is_empty[part]:
            is_empty[part] = False
            empty_count -= 1
    return float((deviation * target).sum()), parts


_HOLD_OUT: Mapping[str, HoldOut] = {
    "random": _random,
    "stratified": _stratified,
    "grouped": _grouped,
}
_K_FOLDS: Mapping[str, KFolds] = {
    "random": _random_folds,
    "stratified": _stratified_folds,
    "grouped": _grouped_folds,
}
