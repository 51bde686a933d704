"""The audit: what is planted on both sides of a split is counted, and nothing else is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_comments

from toxbench.data.audit import audit
from toxbench.data.protocol import Split
from toxbench.data.splits import draw_folds
from toxbench.data.synthetic import sample_comments
from toxbench.data.table import TextDataset, read_comments
from toxbench.records import Audit, SharedGroups
from toxbench.settings import SplitSettings

LONG = "one two three four five six seven eight nine ten"
# Rows 0 to 3 are trained on, 4 is for validation, 5 to 9 are for testing.
PARTS = Split(np.arange(4), np.array([4]), np.arange(5, 10))


def audited(
    texts: dict[int, str] | None = None, groups: dict[int, str] | None = None
) -> tuple[TextDataset, Audit]:
    """Audit ten rows of which some have a text or a group that matters."""
    written = [(texts or {}).get(row, f"text {row}") for row in range(10)]
    column = None if groups is None else [groups.get(row) for row in range(10)]
    comments = make_comments(10, column, written)
    comments = replace(comments, columns={**comments.columns, "group": column and "VideoId"})
    return comments, audit(comments, [PARTS])


def test_rows_of_their_own_leak_nothing() -> None:
    _, found = audited()
    assert (found.test_rows, found.leaked_rows) == (5, 0)
    assert (found.exact_copies, found.near_copies, found.shared_groups, found.label_conflicts) == (
        (),
        (),
        None,
        (),
    )


@pytest.mark.parametrize("kept", [0, 3, 4])
@pytest.mark.parametrize("text", ["LOL", " lol\n", "\uff4c\uff4f\uff4c"])  # full-width letters
def test_equal_texts_are_found_on_both_sides(kept: int, text: str) -> None:
    _, found = audited({kept: "lol", 7: text})
    assert found.exact_copies == ((7, kept),)
    assert (found.near_copies, found.leaked_rows) == ((), 1)


def test_copies_within_one_side_are_no_leak() -> None:
    _, found = audited({0: "lol", 4: "lol", 5: "haha", 9: "haha"})
    assert (found.exact_copies, found.leaked_rows) == ((), 0)


def test_a_near_copy_is_not_counted_as_an_exact_one_and_says_what_it_is() -> None:
    _, found = audited({1: LONG, 6: LONG, 8: f"{LONG} eleven", 9: LONG.replace("o", "a")})
    assert (found.exact_copies, found.near_copies, found.leaked_rows) == (((6, 1),), ((8, 1),), 2)
    assert "80%" in found.near_copy_definition


def test_groups_on_both_sides_are_counted() -> None:
    groups = {0: "a", 4: "b", 5: "a", 6: "b", 7: "c", 8: "c", 9: "a"}
    _, found = audited(groups=groups)
    assert found.shared_groups == SharedGroups(column="VideoId", groups=2, rows=(5, 6, 9))
    assert found.leaked_rows == 3


def test_rows_without_a_group_share_none() -> None:
    _, found = audited(groups={0: "a", 5: "b"})
    assert found.shared_groups == SharedGroups(column="VideoId", groups=0, rows=())


def test_a_row_that_leaks_twice_is_affected_once() -> None:
    _, found = audited({0: LONG, 5: LONG, 6: f"{LONG} eleven"}, {0: "a", 5: "a", 6: "a", 7: "a"})
    assert len(found.exact_copies) == len(found.near_copies) == 1
    assert found.shared_groups is not None
    assert (len(found.shared_groups.rows), found.leaked_rows) == (3, 3)


def test_counts_are_over_all_folds() -> None:
    comments = make_comments(60, [f"g{row % 3}" for row in range(60)], ["lol", "LOL", *"a" * 58])
    folds = draw_folds(comments, SplitSettings(folds=5))
    found = audit(comments, folds)
    assert found.shared_groups is not None
    assert (found.test_rows, found.leaked_rows, found.shared_groups.groups) == (60, 60, 3)
    assert sorted(found.shared_groups.rows) == list(range(60))
    for row, copied in found.exact_copies:
        (fold,) = (fold for fold in folds if row in fold.test)
        assert copied in {*fold.train, *fold.validation}


def test_equal_texts_with_different_labels_are_named() -> None:
    texts = [f"text {row}" for row in range(10)]
    texts[1], texts[4], texts[8] = "Same", "same", "SAME "
    texts[2] = texts[3] = "agreed"
    comments = make_comments(10, texts=texts)
    comments.targets[:] = 0
    comments.targets[4, 1] = 1
    assert audit(comments, [PARTS]).label_conflicts == ((1, 4, 8),)


def test_implications_have_enough_rows_and_a_share() -> None:
    comments = make_comments(100)
    comments.targets[:] = 0
    for label, rows in enumerate((range(50), range(42, 52), range(43, 53), range(4))):
        comments.targets[list(rows), label] = 1
    found = audit(comments, draw_folds(comments)).implications
    assert [(one.label, one.implied_label, one.positives, one.share) for one in found] == [
        ("IsB", "IsC", 10, 0.9),
        ("IsC", "IsB", 10, 0.9),
        ("IsB", "IsA", 10, 0.8),
    ]


def test_constant_labels_are_named_and_imply_nothing() -> None:
    comments = make_comments(40)
    comments.targets[:, 1] = 1
    found = audit(comments, draw_folds(comments))
    assert (found.never_positive_labels, found.always_positive_labels) == (("IsNever",), ("IsB",))
    assert "IsB" not in {one.implied_label for one in found.implications}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_planted_pair_is_found_whatever_the_seed(seed: int) -> None:
    draw = np.random.default_rng(seed)
    texts = [" ".join(f"w{n}" for n in draw.integers(0, 5000, 15)) for _ in range(80)]
    test, kept = 3, 50
    texts[test] = f"{texts[kept]} {'and' if seed % 2 else ''}"
    comments = make_comments(80, texts=texts)
    order = np.setdiff1d(draw.permutation(80), [test, kept])
    parts = Split(np.append(order[20:], kept), order[:0], np.append(order[:20], test))
    found = audit(comments, [parts])
    pairs = ((test, kept),)
    assert (found.exact_copies, found.near_copies) == (((), pairs) if seed % 2 else (pairs, ()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [1, 4])
def test_a_grouped_split_shares_no_group_and_no_text(seed: int, folds: int) -> None:
    draw = np.random.default_rng(seed)
    groups: list[str | None] = [f"g{n}" if n else None for n in draw.integers(0, 40, 200)]
    texts = [
        f"text {n}" if n < 5 else f"own {row}" for row, n in enumerate(draw.integers(0, 80, 200))
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


def test_a_stored_audit_is_read_as_it_was_and_holds_no_text() -> None:
    comments = sample_comments()
    found = audit(comments, draw_folds(comments))
    stored = found.model_dump_json()
    assert Audit.model_validate_json(stored) == found
    assert not any(text in stored for text in comments.texts)


def test_the_sample_has_what_it_says_it_has() -> None:
    comments = sample_comments()
    found = audit(comments, draw_folds(comments))
    assert found.exact_copies
    assert found.label_conflicts
    assert found.never_positive_labels == ("IsHomophobic", "IsRadicalism")
    assert ("IsRacist", "IsHatespeech") in {
        (one.label, one.implied_label) for one in found.implications
    }


def test_the_real_table_shares_videos_and_a_text(real_table: Path) -> None:
    comments = read_comments(real_table)
    found = audit(comments, draw_folds(comments))
    assert found.shared_groups is not None
    assert (found.test_rows, found.leaked_rows) == (200, 197)
    assert (found.shared_groups.groups, len(found.shared_groups.rows)) == (12, 197)
    assert (len(found.exact_copies), len(found.near_copies)) == (2, 0)
    assert [len(rows) for rows in found.label_conflicts] == [6]
    assert found.never_positive_labels == ("IsHomophobic", "IsRadicalism")
    shares = {(one.label, one.implied_label): one.share for one in found.implications}
    assert shares["IsRacist", "IsHatespeech"] == 1
    assert shares["IsHatespeech", "IsRacist"] == pytest.approx(125 / 138)


def test_the_real_table_split_by_videos_leaks_nothing(real_table: Path) -> None:
    comments = read_comments(real_table)
    found = audit(comments, draw_folds(comments, SplitSettings(split="grouped")))
    assert (found.leaked_rows, found.exact_copies) == (0, ())
