"""The fingerprint of a table and its split."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toxbench.data.protocol import Protocol, Split
from toxbench.data.splits import draw_folds
from toxbench.data.table import TextDataset, read_comments


@pytest.fixture
def comments(table: Path) -> TextDataset:
    return read_comments(table)


def protocol(comments: TextDataset) -> Protocol:
    return Protocol(comments, draw_folds(comments))


def test_fingerprint_is_equal_in_every_format(table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.astype({"IsRude": bool}).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    fingerprints = {
        protocol(read_comments(path)).fingerprint
        for path in (table, tmp_path / "t.parquet", tmp_path / "t.jsonl")
    }
    assert len(fingerprints) == 1
    assert len(fingerprints.pop()) == 64


def test_the_real_table_has_one_fingerprint(real_table: Path, tmp_path: Path) -> None:
    pd.read_csv(real_table, keep_default_na=False).to_parquet(tmp_path / "t.parquet")
    first, second = (
        protocol(read_comments(path)).fingerprint for path in (real_table, tmp_path / "t.parquet")
    )
    assert first == second


def change_text(comments: TextDataset) -> TextDataset:
    return replace(comments, texts=(*comments.texts[:-1], comments.texts[-1] + " "))


def change_id(comments: TextDataset) -> TextDataset:
    return replace(comments, ids=("other", *comments.ids[1:]))


def change_target(comments: TextDataset) -> TextDataset:
    targets = comments.targets.copy()
    targets[-1, -1] ^= 1
    return replace(comments, codes=targets)


def change_label(comments: TextDataset) -> TextDataset:
    return replace(comments, labels=(*comments.labels[:-1], "IsOther"))


def move_text_boundary(comments: TextDataset) -> TextDataset:
    first, second, *rest = comments.texts
    return replace(comments, texts=(first + second[0], second[1:], *rest))


@pytest.mark.parametrize(
    "change", [change_text, change_id, change_target, change_label, move_text_boundary]
)
def test_a_changed_table_changes_both_fingerprints(
    comments: TextDataset, change: Callable[[TextDataset], TextDataset]
) -> None:
    before, after = protocol(comments), protocol(change(comments))
    assert before.data_fingerprint != after.data_fingerprint
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [([0, 1], [2], [3, 5]), ([1, 0], [2], [3, 4]), ([0], [1, 2], [3, 4]), ([0, 1, 2], [], [3, 4])],
)
def test_changed_parts_change_only_the_protocol_fingerprint(
    comments: TextDataset, train: list[int], validation: list[int], test: list[int]
) -> None:
    original, changed = (
        Protocol(comments, (Split(*(np.array(rows, dtype=np.int64) for rows in parts)),))
        for parts in (([0, 1], [2], [3, 4]), (train, validation, test))
    )
    assert changed.fingerprint != original.fingerprint
    assert changed.data_fingerprint == original.data_fingerprint


def test_a_second_fold_changes_the_fingerprint(comments: TextDataset) -> None:
    (fold,) = draw_folds(comments)
    single, two = (Protocol(comments, folds).fingerprint for folds in ((fold,), (fold, fold)))
    assert single != two


def test_file_name_does_not_change_fingerprint(comments: TextDataset) -> None:
    renamed = replace(comments, name="other.parquet")
    assert protocol(renamed).fingerprint == protocol(comments).fingerprint
