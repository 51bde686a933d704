"""The split of the original study, and the fingerprint of everything that defines the yardstick."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toxbench.data.split import Protocol, Split, default_split
from toxbench.data.table import Comments, read_comments
from toxbench.errors import DataError
from toxbench.settings import SplitSettings


@pytest.fixture
def comments(table: Path) -> Comments:
    return read_comments(table)


def protocol(comments: Comments, definitions: dict[str, str] | None = None) -> Protocol:
    if definitions is None:
        definitions = {"f1": "harmonic mean", "accuracy": "share"}
    return Protocol(comments, (default_split(len(comments)),), definitions)


def test_the_test_part_of_the_real_table_is_that_of_the_study(real_table: Path) -> None:
    comments = read_comments(real_table)
    test = comments.targets[default_split(len(comments)).test]
    assert len(test) == 200
    assert test.sum() == 321
    assert test[:, comments.labels.index("IsToxic")].sum() == 107
    assert np.mean(~test.any(axis=1)) == 0.465


@pytest.mark.parametrize("validation_size", [0.0, 0.05, 0.25, 0.5])
@pytest.mark.parametrize("split_seed", [0, 42])
def test_test_rows_do_not_depend_on_the_validation_rows(
    validation_size: float, split_seed: int
) -> None:
    usual = default_split(100, SplitSettings(split_seed=split_seed))
    other = SplitSettings(validation_size=validation_size, split_seed=split_seed)
    assert default_split(100, other).test.tolist() == usual.test.tolist()


@pytest.mark.parametrize("row_count", [5, 6, 7, 99, 100, 1000])
@pytest.mark.parametrize("test_size", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("validation_size", [0.0, 0.1, 0.3])
def test_every_row_is_in_exactly_one_part(
    row_count: int, test_size: float, validation_size: float
) -> None:
    settings = SplitSettings(test_size=test_size, validation_size=validation_size)
    split = default_split(row_count, settings)
    together = np.concatenate([split.train, split.validation, split.test])
    assert sorted(together.tolist()) == list(range(row_count))
    assert len(split.test) == int(np.ceil(test_size * row_count))
    assert len(split.train) > 0
    assert (len(split.validation) > 0) == (validation_size > 0)
    assert {part.dtype for part in (split.train, split.validation, split.test)} == {np.dtype("i8")}


def test_the_seed_of_the_split_moves_the_test_rows() -> None:
    settings = [SplitSettings(split_seed=seed) for seed in (0, 1)]
    first, second = (set(default_split(100, each).test.tolist()) for each in settings)
    assert first != second


def test_a_part_is_found_by_its_name() -> None:
    split = default_split(50)
    assert split.part("train") is split.train
    assert split.part("validation") is split.validation
    assert split.part("test") is split.test


@pytest.mark.parametrize(
    ("row_count", "test_size", "validation_size"),
    [(0, 0.2, 0.1), (1, 0.2, 0.1), (2, 0.2, 0.1), (1, 0.2, 0.0), (3, 0.99, 0.0), (10, 0.2, 0.99)],
)
def test_too_few_rows_are_refused_with_the_numbers(
    row_count: int, test_size: float, validation_size: float
) -> None:
    settings = SplitSettings(test_size=test_size, validation_size=validation_size)
    with pytest.raises(DataError, match=f"^{row_count} rows are too few to split") as caught:
        default_split(row_count, settings)
    assert f"test {test_size:g}, validation {validation_size:g}" in str(caught.value)


def test_one_table_has_one_fingerprint_in_every_format(table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.astype({"IsRude": bool}).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    found = {
        protocol(read_comments(path)).fingerprint
        for path in (table, tmp_path / "t.parquet", tmp_path / "t.jsonl")
    }
    assert len(found) == 1
    assert len(found.pop()) == 64


def test_the_real_table_has_one_fingerprint_in_csv_and_parquet(
    real_table: Path, tmp_path: Path
) -> None:
    pd.read_csv(real_table, keep_default_na=False).to_parquet(tmp_path / "t.parquet")
    first, second = (
        protocol(read_comments(path)).fingerprint for path in (real_table, tmp_path / "t.parquet")
    )
    assert first == second


def one_text(comments: Comments) -> Comments:
    return replace(comments, texts=(*comments.texts[:-1], comments.texts[-1] + " "))


def one_id(comments: Comments) -> Comments:
    return replace(comments, ids=("other", *comments.ids[1:]))


def one_target(comments: Comments) -> Comments:
    targets = comments.targets.copy()
    targets[-1, -1] ^= 1
    return replace(comments, targets=targets)


def one_label(comments: Comments) -> Comments:
    return replace(comments, labels=(*comments.labels[:-1], "IsOther"))


def a_moved_boundary(comments: Comments) -> Comments:
    first, second, *rest = comments.texts
    return replace(comments, texts=(first + second[0], second[1:], *rest))


@pytest.mark.parametrize("change", [one_text, one_id, one_target, one_label, a_moved_boundary])
def test_one_change_of_the_table_changes_both_fingerprints(
    comments: Comments, change: Callable[[Comments], Comments]
) -> None:
    before, after = protocol(comments), protocol(change(comments))
    assert before.data_fingerprint != after.data_fingerprint
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [([0, 1], [2], [3, 5]), ([1, 0], [2], [3, 4]), ([0], [1, 2], [3, 4]), ([0, 1, 2], [], [3, 4])],
)
def test_one_change_of_the_rows_changes_the_fingerprint_but_not_that_of_the_table(
    comments: Comments, train: list[int], validation: list[int], test: list[int]
) -> None:
    usual, other = (
        Protocol(comments, (Split(*(np.array(rows, dtype=np.int64) for rows in parts)),), {})
        for parts in (([0, 1], [2], [3, 4]), (train, validation, test))
    )
    assert other.fingerprint != usual.fingerprint
    assert other.data_fingerprint == usual.data_fingerprint


def test_a_second_fold_changes_the_fingerprint(comments: Comments) -> None:
    fold = default_split(len(comments))
    one, two = (Protocol(comments, folds, {}).fingerprint for folds in ((fold,), (fold, fold)))
    assert one != two


@pytest.mark.parametrize(
    "definitions",
    [
        {"f1": "harmonic mean"},
        {"f1": "harmonic mean", "accuracy": "share."},
        {"f1": "harmonic mean", "precision": "share"},
        {"f1": "harmonic mean", "accuracy": "share", "recall": "share"},
    ],
)
def test_one_definition_changes_the_fingerprint(
    comments: Comments, definitions: dict[str, str]
) -> None:
    assert protocol(comments, definitions).fingerprint != protocol(comments).fingerprint


def test_the_order_of_definitions_and_the_name_of_the_file_do_not_change_the_fingerprint(
    comments: Comments,
) -> None:
    renamed = replace(comments, name="other.parquet")
    turned = {"accuracy": "share", "f1": "harmonic mean"}
    assert protocol(renamed, turned).fingerprint == protocol(comments).fingerprint
