"""Nested subsets of the train rows."""

from itertools import pairwise

import numpy as np
import pytest
from support import make_comments

from toxbench.data.groups import row_groups
from toxbench.data.protocol import Split
from toxbench.data.splits import draw_folds, train_subsets
from toxbench.data.table import TextDataset
from toxbench.settings import SplitSettings

FRACTIONS = (0.05, 0.25, 0.5, 0.51, 1)


def subsets(
    comments: TextDataset, settings: SplitSettings, fold: int = 0
) -> tuple[Split, list[Split]]:
    """Return a fold, and its subset of each fraction."""
    folds = draw_folds(comments, settings)
    parts = [train_subsets(comments, folds, fraction, settings)[fold] for fraction in FRACTIONS]
    return folds[fold], parts


@pytest.mark.parametrize("kind", ["random", "stratified", "grouped"])
@pytest.mark.parametrize("fold", [0, 2])
def test_smaller_subset_is_in_larger_subset(kind: str, fold: int) -> None:
    comments = make_comments(200, groups=[f"g{row % 40}" for row in range(200)])
    settings = SplitSettings.model_validate({"split": kind, "folds": 3})
    full, parts = subsets(comments, settings, fold)
    for smaller, larger in pairwise(parts):
        assert set(smaller.train.tolist()) <= set(larger.train.tolist())
    for part in parts:
        assert part.validation.tolist() == full.validation.tolist()
        assert part.test.tolist() == full.test.tolist()
    assert parts[-1].train.tolist() == full.train.tolist()


def test_subset_has_the_fraction_of_rows() -> None:
    full, parts = subsets(make_comments(200), SplitSettings())
    sizes = [len(part.train) for part in parts]
    assert sizes == [int(fraction * len(full.train)) for fraction in FRACTIONS]


def test_grouped_subset_has_whole_groups() -> None:
    comments = make_comments(200, groups=[f"g{row % 23}" for row in range(200)])
    full, parts = subsets(comments, SplitSettings(split="grouped"))
    groups = row_groups(comments)
    for part, fraction in zip(parts, FRACTIONS, strict=True):
        left_out = np.setdiff1d(full.train, part.train)
        assert not set(groups[part.train]) & set(groups[left_out])
        assert 0 < len(part.train) <= max(fraction * len(full.train), 9)


def test_rare_labels_keep_a_positive_row() -> None:
    comments = make_comments(400)
    full, _ = subsets(comments, SplitSettings())
    comments.targets[:, 2] = 0
    comments.targets[full.train[7], 2] = 1  # one of 304 rows
    _, (smallest, *_) = subsets(comments, SplitSettings())
    assert comments.targets[smallest.train].any(axis=0).tolist() == [True, True, True, False]


def test_order_depends_on_the_split_seed_only() -> None:
    comments = make_comments(200)
    folds = draw_folds(comments)
    first, second, other = (
        train_subsets(comments, folds, 0.5, SplitSettings(split_seed=seed))[0].train.tolist()
        for seed in (1, 1, 2)
    )
    assert first == second != other
