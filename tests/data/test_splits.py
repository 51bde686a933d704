"""Random, stratified and grouped folds, and the split of the original study."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_comments

from toxbench.data.groups import row_groups
from toxbench.data.protocol import Split
from toxbench.data.splits import draw_folds, fold_warnings
from toxbench.data.table import TextDataset, read_comments
from toxbench.errors import DataError
from toxbench.records import PARTS
from toxbench.settings import SplitSettings

KINDS = ("random", "stratified", "grouped")


def one_fold(row_count: int, settings: SplitSettings | None = None) -> Split:
    (fold,) = draw_folds(make_comments(row_count), settings)
    return fold


def test_the_real_test_part_matches_the_study(real_table: Path) -> None:
    comments = read_comments(real_table)
    (fold,) = draw_folds(comments)
    test = comments.targets[fold.test]
    assert len(test) == 200
    assert test.sum() == 321
    assert test[:, comments.labels.index("IsToxic")].sum() == 107
    assert np.mean(~test.any(axis=1)) == 0.465


@pytest.mark.parametrize("validation_size", [0.0, 0.05, 0.25, 0.5])
@pytest.mark.parametrize("split_seed", [0, 42])
def test_test_rows_do_not_depend_on_validation(validation_size: float, split_seed: int) -> None:
    default = one_fold(100, SplitSettings(split_seed=split_seed))
    settings = SplitSettings(validation_size=validation_size, split_seed=split_seed)
    assert one_fold(100, settings).test.tolist() == default.test.tolist()


@pytest.mark.parametrize("row_count", [5, 6, 7, 99, 100, 1000])
@pytest.mark.parametrize("test_size", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("validation_size", [0.0, 0.1, 0.3])
def test_every_row_is_in_exactly_one_part(
    row_count: int, test_size: float, validation_size: float
) -> None:
    settings = SplitSettings(test_size=test_size, validation_size=validation_size)
    split = one_fold(row_count, settings)
    together = np.concatenate([split.train, split.validation, split.test])
    assert sorted(together.tolist()) == list(range(row_count))
    assert len(split.test) == int(np.ceil(test_size * row_count))
    assert len(split.train) > 0
    assert (len(split.validation) > 0) == (validation_size > 0)
    assert {part.dtype for part in (split.train, split.validation, split.test)} == {np.dtype("i8")}


def test_the_seed_changes_the_test_rows() -> None:
    first, second = (one_fold(100, SplitSettings(split_seed=seed)).test for seed in (0, 1))
    assert set(first.tolist()) != set(second.tolist())


def test_parts_are_returned_by_name() -> None:
    split = one_fold(50)
    assert split.part("train") is split.train
    assert split.part("validation") is split.validation
    assert split.part("test") is split.test


@pytest.mark.parametrize(
    ("row_count", "test_size", "validation_size"),
    [(0, 0.2, 0.1), (1, 0.2, 0.1), (2, 0.2, 0.1), (1, 0.2, 0.0), (3, 0.99, 0.0), (10, 0.2, 0.99)],
)
def test_too_few_rows_are_refused(row_count: int, test_size: float, validation_size: float) -> None:
    settings = SplitSettings(test_size=test_size, validation_size=validation_size)
    with pytest.raises(DataError, match=rf"^{row_count} rows? (is|are) too few to split") as caught:
        one_fold(row_count, settings)
    assert f"test {test_size:g}, validation {validation_size:g}" in str(caught.value)


# --- all kinds of folds


def make_grouped(rows: int, groups: int, seed: int = 0) -> TextDataset:
    """Return rows in groups of very different sizes, a tenth of them without a group."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(groups, 0.7))
    numbers = rng.choice(groups, size=rows, p=shares)
    names = [None if row % 10 == 9 else f"g{number}" for row, number in enumerate(numbers)]
    return make_comments(rows, names, seed=seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("validation_size", [0.0, 0.2])
def test_every_row_is_tested_exactly_once(kind: str, folds: int, validation_size: float) -> None:
    comments = make_grouped(200, 30)
    drawn_folds = draw_folds(
        comments, SplitSettings(split=kind, folds=folds, validation_size=validation_size)
    )  # type: ignore[arg-type]
    assert len(drawn_folds) == folds
    assert sorted(np.concatenate([fold.test for fold in drawn_folds]).tolist()) == list(range(200))
    for fold in drawn_folds:
        parts = np.concatenate([fold.train, fold.validation, fold.test])
        assert sorted(parts.tolist()) == list(range(200))
        assert (len(fold.validation) > 0) == (validation_size > 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folds", [1, 4])
def test_folds_are_determined_by_the_seed(kind: str, folds: int) -> None:
    comments = make_grouped(120, 25)
    first, repeated, second = (
        [fold.test.tolist() for fold in draw_folds(comments, SplitSettings(
            split=kind, folds=folds, split_seed=seed))]  # type: ignore[arg-type]
        for seed in (0, 0, 1)
    )  # fmt: skip
    assert first == repeated
    assert first != second


@given(seed=st.integers(0, 10_000), folds=st.integers(1, 5), groups=st.integers(8, 40))
@settings(deadline=None, max_examples=20)
def test_no_group_is_in_two_parts(seed: int, folds: int, groups: int) -> None:
    comments = make_grouped(100, groups, seed)
    numbers = row_groups(comments)
    # One group of nearly all rows may be all rows except the test rows.
    size = 0.05 if np.bincount(numbers).max() < 34 else 0.0
    split = SplitSettings(split="grouped", folds=folds, validation_size=size, split_seed=seed)
    for fold in draw_folds(comments, split):
        parts = [set(numbers[fold.part(part)]) for part in ("train", "validation", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts))


@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(40, 90),
    folds=st.integers(2, 4),
    groups=st.integers(2, 30),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=40)
def test_any_table_is_tested_once(kind: str, rows: int, folds: int, groups: int, seed: int) -> None:
    comments = make_grouped(rows, groups, seed)
    split = SplitSettings(split=kind, folds=folds, validation_size=0.0, split_seed=seed)  # type: ignore[arg-type]
    drawn_folds = draw_folds(comments, split)
    tested = np.concatenate([fold.test for fold in drawn_folds])
    assert sorted(tested.tolist()) == list(range(rows))
    assert all(not set(fold.test) & set(fold.train) for fold in drawn_folds)


def test_grouped_folds_are_balanced() -> None:
    comments = make_comments(600, [f"g{row // 6}" for row in range(600)])
    for fold in draw_folds(comments, SplitSettings(split="grouped", folds=5)):
        assert abs(len(fold.test) - 120) <= 6
        shares = comments.targets[fold.test].mean(axis=0)
        assert np.abs(shares - comments.targets.mean(axis=0)).max() < 0.03


def test_stratified_folds_distribute_rare_labels() -> None:
    comments = make_comments(400)
    rare = comments.supports["IsC"]
    counts = [
        int(comments.targets[fold.test, 2].sum())
        for fold in draw_folds(comments, SplitSettings(split="stratified", folds=5))
    ]
    assert sum(counts) == rare
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("folds", [1, 3])
def test_fewer_groups_than_parts_are_refused(folds: int) -> None:
    comments = make_comments(50, ["one"] * 50)
    with pytest.raises(DataError, match="or their groups, are too few"):
        draw_folds(comments, SplitSettings(split="grouped", folds=folds))


def test_more_folds_than_rows_are_refused() -> None:
    with pytest.raises(DataError, match="4 rows are too few"):
        draw_folds(make_comments(4), SplitSettings(folds=5, validation_size=0.0))


def test_labels_too_rare_are_reported() -> None:
    comments = make_comments(100)
    comments.targets[:, 2] = 0
    comments.targets[:3, 2] = 1
    comments.targets[:, 1] = 0
    comments.targets[:6, 1] = 1
    parts = np.array_split(np.arange(100), 5)
    folds = [Split(np.setdiff1d(np.arange(100), part), part[:0], part) for part in parts]
    assert fold_warnings(comments, folds) == [
        "fewer positive rows than the 5 folds: IsC (3)",
        "no positive train row, nothing to learn: IsB (fold 0), IsC (fold 0)",
        "no positive test row, not scored there: IsB (fold 1 2 3 4), IsC (fold 1 2 3 4)",
    ]
    assert fold_warnings(comments, folds[1:2]) == [
        "no positive test row, not scored there: IsB, IsC"
    ]
    many = [*folds, *folds]
    assert "IsC (8 of 10 folds)" in fold_warnings(comments, many)[-1]
    assert fold_warnings(comments, [Split(*(np.arange(100),) * 3)]) == []


def test_one_group_per_part_is_enough() -> None:
    comments = make_comments(50, [f"g{row % 3}" for row in range(50)])
    (fold,) = draw_folds(comments, SplitSettings(split="grouped"))
    assert {len(set(row_groups(comments)[fold.part(part)])) for part in PARTS} == {1}
    for folds in (2, 3):
        settings = SplitSettings(split="grouped", folds=folds, validation_size=0.0)
        assert all(len(fold.test) for fold in draw_folds(comments, settings))


# --- groups


def test_groups_are_joined_by_column_and_text() -> None:
    texts = ["One  text", "other", "ONE TEXT", "\uff4f\uff4e\uff45 text", "alone", "last"]
    comments = make_comments(6, ["a", "a", None, "b", None, None], texts)
    assert row_groups(comments).tolist() == [0, 0, 0, 0, 1, 2]


def test_rows_without_groups_stay_separate() -> None:
    assert row_groups(make_comments(5)).tolist() == [0, 1, 2, 3, 4]
    assert row_groups(make_comments(3, [None, None, None])).tolist() == [0, 1, 2]


def test_the_real_table_keeps_videos_together(real_table: Path) -> None:
    comments = read_comments(real_table)
    folds = draw_folds(comments, SplitSettings(split="grouped", folds=5))
    assert comments.groups is not None
    for fold in folds:
        sides = [
            {comments.groups[row] for row in rows} - {None} for rows in (fold.train, fold.test)
        ]
        assert not sides[0] & sides[1]
        assert 100 < len(fold.test) < 300


def test_uneven_folds_are_reported() -> None:
    comments = make_comments(60, groups=["large"] * 40 + [f"g{row}" for row in range(20)])
    uneven = draw_folds(comments, SplitSettings(split="grouped", folds=5, validation_size=0))
    (warning,) = (w for w in fold_warnings(comments, uneven) if "rows each" in w)
    assert "to 40 rows each" in warning
    even = draw_folds(comments, SplitSettings(folds=5))
    assert not any("rows each" in warning for warning in fold_warnings(comments, even))
