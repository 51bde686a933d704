"""The audit counts planted copies on both sides of a split, and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_comments

from toxbench.data.audit import audit
from toxbench.data.protocol import Split
from toxbench.data.samples import sample_comments
from toxbench.data.splits import draw_folds
from toxbench.data.table import read_comments
from toxbench.records import Audit, SharedGroups
from toxbench.settings import SplitSettings
from toxbench.util.arrays import UNLABELLED

LONG = "one two three four five six seven eight nine ten"
# Rows 0 to 3 are trained on, 4 is for validation, 5 to 9 are for testing.
FOLD = Split(np.arange(4), np.array([4]), np.arange(5, 10))


def audit_rows(texts: dict[int, str] | None = None, groups: dict[int, str] | None = None) -> Audit:
    """Audit a table of ten rows; by default all texts differ and no row has a group."""
    all_texts = [(texts or {}).get(row, f"text {row}") for row in range(10)]
    column = None if groups is None else [groups.get(row) for row in range(10)]
    comments = make_comments(10, column, all_texts)
    columns = {**comments.columns, "group": column and "VideoId"}
    return audit(replace(comments, columns=columns), [FOLD])


def test_different_rows_have_no_leaks() -> None:
    result = audit_rows()
    assert (result.test_rows, result.leaked_rows) == (5, 0)
    assert (
        result.exact_copies,
        result.near_copies,
        result.shared_groups,
        result.label_conflicts,
    ) == ((), (), None, ())


@pytest.mark.parametrize("copied", [0, 3, 4])
@pytest.mark.parametrize("text", ["LOL", " lol\n", "\uff4c\uff4f\uff4c"])  # full-width letters
def test_equal_texts_on_both_sides_leak(copied: int, text: str) -> None:
    result = audit_rows({copied: "lol", 7: text})
    assert result.exact_copies == ((7, copied),)
    assert (result.near_copies, result.leaked_rows) == ((), 1)


def test_copies_within_one_side_are_not_leaks() -> None:
    result = audit_rows({0: "lol", 4: "lol", 5: "haha", 9: "haha"})
    assert (result.exact_copies, result.leaked_rows) == ((), 0)


def test_near_copies_are_counted_separately() -> None:
    result = audit_rows({1: LONG, 6: LONG, 8: f"{LONG} eleven", 9: LONG.replace("o", "a")})
    assert (result.exact_copies, result.near_copies, result.leaked_rows) == (
        ((6, 1),),
        ((8, 1),),
        2,
    )
    assert "80%" in result.near_copy_definition


def test_groups_on_both_sides_are_counted() -> None:
    groups = {0: "a", 4: "b", 5: "a", 6: "b", 7: "c", 8: "c", 9: "a"}
    result = audit_rows(groups=groups)
    assert result.shared_groups == SharedGroups(column="VideoId", groups=2, rows=(5, 6, 9))
    assert result.leaked_rows == 3


def test_rows_without_a_group_share_none() -> None:
    result = audit_rows(groups={0: "a", 5: "b"})
    assert result.shared_groups == SharedGroups(column="VideoId", groups=0, rows=())


def test_rows_with_several_leaks_count_once() -> None:
    texts = {0: LONG, 5: LONG, 6: f"{LONG} eleven"}
    result = audit_rows(texts, {0: "a", 5: "a", 6: "a", 7: "a"})
    assert len(result.exact_copies) == len(result.near_copies) == 1
    assert result.shared_groups is not None
    assert (len(result.shared_groups.rows), result.leaked_rows) == (3, 3)


def test_counts_are_over_all_folds() -> None:
    comments = make_comments(60, [f"g{row % 3}" for row in range(60)], ["lol", "LOL", *"a" * 58])
    folds = draw_folds(comments, SplitSettings(folds=5))
    result = audit(comments, folds)
    assert result.shared_groups is not None
    assert (result.test_rows, result.leaked_rows, result.shared_groups.groups) == (60, 60, 3)
    assert sorted(result.shared_groups.rows) == list(range(60))
    for row, copied in result.exact_copies:
        (fold,) = (fold for fold in folds if row in fold.test)
        assert copied in {*fold.train, *fold.validation}


def test_equal_texts_with_different_labels_are_reported() -> None:
    texts = [f"text {row}" for row in range(10)]
    texts[1], texts[4], texts[8] = "Same", "same", "SAME "
    texts[2] = texts[3] = "agreed"
    comments = make_comments(10, texts=texts)
    comments.targets[:] = 0
    comments.targets[4, 1] = 1
    assert audit(comments, [FOLD]).label_conflicts == ((1, 4, 8),)
    codes = comments.codes.copy()
    codes[[4, 8]] = UNLABELLED
    assert audit(replace(comments, codes=codes), [FOLD]).label_conflicts == ()


def test_implications_need_rows_and_a_share() -> None:
    comments = make_comments(100)
    comments.targets[:] = 0
    for label, rows in enumerate((range(50), range(42, 52), range(43, 53), range(4))):
        comments.targets[list(rows), label] = 1
    implications = audit(comments, draw_folds(comments)).implications
    assert [(i.label, i.implied_label, i.positives, i.share) for i in implications] == [
        ("IsB", "IsC", 10, 0.9),
        ("IsC", "IsB", 10, 0.9),
        ("IsB", "IsA", 10, 0.8),
    ]


def test_constant_labels_are_reported_but_not_implied() -> None:
    comments = make_comments(40)
    comments.targets[:, 1] = 1
    result = audit(comments, draw_folds(comments))
    assert (result.never_positive_labels, result.always_positive_labels) == (("IsNever",), ("IsB",))
    assert "IsB" not in {implication.implied_label for implication in result.implications}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_planted_pairs_are_detected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 5000, 15)) for _ in range(80)]
    copy, copied = 3, 50
    texts[copy] = f"{texts[copied]} {'and' if seed % 2 else ''}"
    comments = make_comments(80, texts=texts)
    order = np.setdiff1d(rng.permutation(80), [copy, copied])
    fold = Split(np.append(order[20:], copied), order[:0], np.append(order[:20], copy))
    result = audit(comments, [fold])
    pairs = ((copy, copied),)
    assert (result.exact_copies, result.near_copies) == (((), pairs) if seed % 2 else (pairs, ()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [1, 4])
def test_grouped_splits_share_no_group_or_text(seed: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    groups: list[str | None] = [f"g{n}" if n else None for n in rng.integers(0, 40, 200)]
    texts = [
        f"text {n}" if n < 5 else f"unique {row}" for row, n in enumerate(rng.integers(0, 80, 200))
    ]
    comments = make_comments(200, groups, texts)
    random = audit(comments, draw_folds(comments, SplitSettings(folds=folds)))
    grouped = audit(comments, draw_folds(comments, SplitSettings(split="grouped", folds=folds)))
    assert random.shared_groups is not None
    assert random.shared_groups.rows
    assert grouped.shared_groups is not None
    assert (grouped.exact_copies, grouped.shared_groups.rows, grouped.leaked_rows) == (
        (),
        (),
        len(grouped.near_copies),
    )


def test_stored_audits_are_read_unchanged() -> None:
    comments = sample_comments()
    result = audit(comments, draw_folds(comments))
    stored = result.model_dump_json()
    assert Audit.model_validate_json(stored) == result
    assert not any(text in stored for text in comments.texts)


def test_the_sample_has_leaks_and_odd_labels() -> None:
    comments = sample_comments()
    result = audit(comments, draw_folds(comments))
    assert result.exact_copies
    assert result.label_conflicts
    assert result.never_positive_labels == ("IsHomophobic", "IsRadicalism")
    assert ("IsRacist", "IsHatespeech") in {(i.label, i.implied_label) for i in result.implications}


def test_the_real_table_shares_videos_and_texts(real_table: Path) -> None:
    comments = read_comments(real_table)
    result = audit(comments, draw_folds(comments))
    assert result.shared_groups is not None
    assert (result.test_rows, result.leaked_rows) == (200, 197)
    assert (result.shared_groups.groups, len(result.shared_groups.rows)) == (12, 197)
    assert (len(result.exact_copies), len(result.near_copies)) == (2, 0)
    assert [len(rows) for rows in result.label_conflicts] == [6]
    assert result.never_positive_labels == ("IsHomophobic", "IsRadicalism")
    shares = {(i.label, i.implied_label): i.share for i in result.implications}
    assert shares["IsRacist", "IsHatespeech"] == 1
    assert shares["IsHatespeech", "IsRacist"] == pytest.approx(125 / 138)


def test_splitting_the_real_table_by_videos_prevents_leaks(real_table: Path) -> None:
    comments = read_comments(real_table)
    result = audit(comments, draw_folds(comments, SplitSettings(split="grouped")))
    assert (result.leaked_rows, result.exact_copies) == (0, ())
