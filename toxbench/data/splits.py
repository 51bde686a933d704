"""Drawing folds: at random, stratified by labels, or with every group on one side."""

from collections.abc import Callable, Mapping, Sequence

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
from toxbench.util.arrays import Rows

# Assignments of groups to parts that are compared: many for few groups, which are hard to balance,
# and so few for many groups that drawing stays a matter of seconds.
_MOST_TRIES, _FEWEST_TRIES, _PLACEMENTS = 200, 3, 40_000

_UNEVEN = 3  # times the smallest fold's test rows
_FOLDS_NAMED = 4  # at most, in a warning

# What a label cannot do in a fold, if no row of the part has it.
_WITHOUT_POSITIVES: Mapping[Part, str] = {"train": "nothing to learn", "test": "not scored there"}

HoldOut = Callable[
    [TextDataset, Rows, float, int], tuple[Rows, Rows]
]  # to what stays, what is held
KFolds = Callable[[TextDataset, int, int], list[Rows]]


def draw_folds(comments: TextDataset, settings: SplitSettings | None = None) -> tuple[Split, ...]:
    """Split a table.

    One fold tests ``test_size`` of the rows; with K folds every row is tested exactly once.
    Validation rows come out of the train rows in the same way, so that the test rows do not depend
    on how many are held out for validation.

    Raises:
        DataError: a part that must have rows would have none.
    """
    settings = settings or SplitSettings()
    rows = np.arange(len(comments), dtype=np.int64)
    hold_out, seed = _HOLD_OUT[settings.split], settings.split_seed
    try:
        if settings.folds == 1:
            drawn = [hold_out(comments, rows, settings.test_size, seed)]
        else:
            tests = _K_FOLDS[settings.split](comments, settings.folds, seed)
            drawn = [(np.setdiff1d(rows, test), test) for test in tests]
        folds = tuple(hold_out_validation(comments, *parts, settings) for parts in drawn)
    except ValueError as error:
        raise DataError(_too_few(len(rows), settings)) from error
    if not all(len(fold.train) and len(fold.test) for fold in folds):
        raise DataError(_too_few(len(rows), settings))
    return folds


def hold_out_validation(
    comments: TextDataset, kept: Rows, test: Rows, settings: SplitSettings
) -> Split:
    """Draw validation rows out of those that are kept for training, by the rule of ``settings``.

    Raises:
        ValueError: too few rows or groups for both.
    """
    train, validation = kept, kept[:0]
    if settings.validation_size > 0:
        hold_out = _HOLD_OUT[settings.split]
        train, validation = hold_out(comments, kept, settings.validation_size, settings.split_seed)
        if not (len(train) and len(validation)):
            raise ValueError("one of the parts is empty")
    return Split(*(part.astype(np.int64) for part in (train, validation, test)))


def fold_warnings(comments: TextDataset, folds: Sequence[Split]) -> list[str]:
    """Say which labels are too rare for these folds, and whether the folds differ much in size.

    Labels that nobody has are not among them.
    """
    supports = {label: count for label, count in comments.supports.items() if count}
    rare = [f"{label} ({count})" for label, count in supports.items() if count < len(folds)]
    warnings = (
        [f"fewer positive rows than the {len(folds)} folds: {', '.join(rare)}"] if rare else []
    )
    for part, result in _WITHOUT_POSITIVES.items():
        missing = [
            f"{label}{_in_folds(empty, folds)}"
            for label, empty in _without_positives(comments, folds, part).items()
            if label in supports and empty
        ]
        if missing:
            warnings.append(f"no positive {part} row, {result}: {', '.join(missing)}")
    sizes = [len(fold.test) for fold in folds]
    if max(sizes) > _UNEVEN * min(sizes):
        warnings.append(
            f"the folds test {min(sizes)} to {max(sizes)} rows each, for some groups are large; "
            "toxbench data check names what links rows"
        )
    return warnings


def _without_positives(
    comments: TextDataset, folds: Sequence[Split], part: Part
) -> dict[str, list[int]]:
    """Return label -> numbers of the folds in whose part no row has it."""
    there = np.array([comments.targets[fold.part(part)].any(axis=0) for fold in folds])
    return {label: np.flatnonzero(~there[:, i]).tolist() for i, label in enumerate(comments.labels)}


def _in_folds(numbers: Sequence[int], folds: Sequence[Split]) -> str:
    if len(folds) == 1:
        return ""
    if len(numbers) > _FOLDS_NAMED:
        return f" ({len(numbers)} of {len(folds)} folds)"
    return f" (fold {' '.join(map(str, numbers))})"


def _too_few(count: int, settings: SplitSettings) -> str:
    many = f"{settings.folds} folds" if settings.folds > 1 else f"test {settings.test_size:g}"
    groups = ", or their groups," if settings.split == "grouped" else ""
    rows = "1 row is" if count == 1 else f"{count} rows{groups} are"
    return (
        f"{rows} too few to split ({many}, validation {settings.validation_size:g} of the rest); "
        "bring more rows, or change --folds, --test-size or --validation-size"
    )


def _random(comments: TextDataset, rows: Rows, size: float, seed: int) -> tuple[Rows, Rows]:
    """Hold out as the original study did."""
    kept, held = train_test_split(rows, test_size=size, random_state=seed)
    return kept, held


def _stratified(comments: TextDataset, rows: Rows, size: float, seed: int) -> tuple[Rows, Rows]:
    """Hold out with every label's share kept (Sechidis et al. 2011)."""
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=size, random_state=seed)
    kept, held = next(splitter.split(rows, comments.targets[rows]))
    return rows[kept], rows[held]


def _grouped(comments: TextDataset, rows: Rows, size: float, seed: int) -> tuple[Rows, Rows]:
    """Hold out whole groups; of many draws, the one nearest to the size and the labels' shares."""
    held = _best_assignment(comments, rows, np.array([1 - size, size]), seed) == 1
    return rows[~held], rows[held]


def _random_folds(comments: TextDataset, folds: int, seed: int) -> list[Rows]:
    splitter = KFold(folds, shuffle=True, random_state=seed)
    return [test for _, test in splitter.split(comments.targets)]


def _stratified_folds(comments: TextDataset, folds: int, seed: int) -> list[Rows]:
    splitter = MultilabelStratifiedKFold(folds, shuffle=True, random_state=seed)
    return [test for _, test in splitter.split(comments.targets, comments.targets)]


def _grouped_folds(comments: TextDataset, folds: int, seed: int) -> list[Rows]:
    rows = np.arange(len(comments), dtype=np.int64)
    part = _best_assignment(comments, rows, np.full(folds, 1 / folds), seed)
    return [rows[part == fold] for fold in range(folds)]


def _best_assignment(
    comments: TextDataset, rows: Rows, shares: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """Assign whole groups to parts; return each row's part, ``[row]``.

    Groups go one after another, in a random order that favours large ones, to the part that is
    then nearest to its share of rows and of every label. The best of many orders is taken.

    Raises:
        ValueError: fewer groups than parts.
    """
    numbers = np.unique(row_groups(comments)[rows], return_inverse=True)[1]
    counted = np.column_stack([np.ones(len(rows)), comments.targets[rows]])
    totals = np.zeros((numbers.max() + 1, counted.shape[1]))
    np.add.at(totals, numbers, counted)
    if len(totals) < len(shares):
        raise ValueError("fewer groups than parts")
    # Every column sums to 1, so that a rare label weighs as much as the rows do.
    weights = totals / np.maximum(totals.sum(axis=0), 1)
    rng = np.random.default_rng(seed)
    tries = max(_FEWEST_TRIES, min(_MOST_TRIES, _PLACEMENTS // len(weights)))
    draws = [_assign(weights, shares, rng) for _ in range(tries)]
    return min(draws, key=lambda draw: draw[0])[1][numbers]


def _assign(
    weights: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, npt.NDArray[np.int64]]:
    """Return how far one draw is from the shares, and each group's part; no part is empty."""
    filled = np.zeros((len(shares), weights.shape[1]))
    wanted = shares[:, None]
    off = np.square(filled / wanted - 1)
    parts = np.zeros(len(weights), dtype=np.int64)
    empty = np.ones(len(shares), dtype=bool)
    empty_count = len(shares)
    order = np.argsort(
        -(weights[:, 0] + weights.sum(axis=1)) * rng.exponential(size=len(weights)), kind="stable"
    )
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        after = filled + weights[group]
        then = after / wanted
        then -= 1
        np.square(then, out=then)
        # What putting the group there does to the sum of squared relative distances.
        cost = ((then - off) * wanted).sum(axis=1)
        if left == empty_count:  # the last groups go where there is none yet
            cost[~empty] = np.inf
        part = int(cost.argmin())
        parts[group] = part
        filled[part], off[part] = after[part], then[part]
        if empty[part]:
            empty[part] = False
            empty_count -= 1
    return float((off * wanted).sum()), parts


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
