"""The rows of a search: all but the test rows, and nothing of those."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings
from toxbench.data.groups import row_groups
from toxbench.data.load import load_dataset
from toxbench.data.protocol import Protocol
from toxbench.data.splits import draw_folds
from toxbench.data.table import TextDataset, read_comments
from toxbench.errors import DataError
from toxbench.plugin.registry import Registry
from toxbench.settings import INNER_FOLDS, ColumnSettings, SplitSettings
from toxbench.tuning.definition import InnerData, inner_data
from toxbench.tuning.tune import plan_tuning


def make_comments(rows: int, positives: tuple[int, ...] | None = None) -> TextDataset:
    """Make a table of rows that tell themselves apart; every second one is positive by default."""
    targets = np.zeros((rows, 2), dtype=np.uint8)
    targets[list(range(0, rows, 2) if positives is None else positives), 0] = 1
    return TextDataset(
        name="comments.csv",
        ids=tuple(f"id-{row}" for row in range(rows)),
        texts=tuple(f"comment number {row} of them" for row in range(rows)),
        targets=targets,
        labels=("IsRude", "IsNever"),
        groups=tuple(f"video-{row}" if row % 3 else None for row in range(rows)),
        ignored_columns=(),
        columns={},
    )


def make(rows: int = 50, seed: int = 0, **split: float) -> tuple[Protocol, InnerData]:
    comments, settings = make_comments(rows), SplitSettings(**split)  # type: ignore[arg-type]
    protocol = Protocol(comments, draw_folds(comments, settings))
    return protocol, inner_data(protocol, settings, seed)


def beside_test(protocol: Protocol) -> list[int]:
    fold = protocol.folds[0]
    return sorted([*fold.train.tolist(), *fold.validation.tolist()])


@pytest.mark.parametrize("validation_size", [0.0, 0.05, 0.5])
def test_the_rows_are_those_of_train_and_validation(validation_size: float) -> None:
    protocol, inner = make(validation_size=validation_size)
    rows = beside_test(protocol)
    table = protocol.comments
    assert inner.comments.ids == tuple(table.ids[row] for row in rows)
    assert inner.comments.texts == tuple(table.texts[row] for row in rows)
    assert inner.comments.groups == tuple((table.groups or ())[row] for row in rows)
    assert np.array_equal(inner.comments.targets, table.targets[rows])
    assert inner.comments.labels == table.labels


def test_nothing_of_a_test_row_is_in_the_data_of_a_search() -> None:
    protocol, inner = make()
    whole = pickle.dumps(inner)
    for row in protocol.folds[0].test.tolist():
        assert f"id-{row}".encode() not in {word.encode() for word in inner.comments.ids}
        assert f"comment number {row} of them".encode() not in whole
    assert f"comment number {beside_test(protocol)[0]} of them".encode() in whole


def test_the_search_does_not_depend_on_the_test_rows() -> None:
    protocol, inner = make()
    spoiled = protocol.comments.targets.copy()
    spoiled[protocol.folds[0].test] ^= 1
    texts = list(protocol.comments.texts)
    for row in protocol.folds[0].test.tolist():
        texts[row] = "spoiled"
    comments = replace(protocol.comments, targets=spoiled, texts=tuple(texts))
    other = inner_data(replace(protocol, comments=comments), SplitSettings(), 0)
    assert other.comments.texts == inner.comments.texts
    assert other.comments.targets.tobytes() == inner.comments.targets.tobytes()
    for one, two in zip(inner.folds, other.folds, strict=True):
        assert np.array_equal(one.train, two.train)


def test_nobody_writes_into_the_inner_targets() -> None:
    _, inner = make()
    with pytest.raises(ValueError, match="read-only"):
        inner.comments.targets[:] = 1


@pytest.mark.parametrize("rows", [13, 50, 61])
def test_the_folds_partition_the_rows(rows: int) -> None:
    _, inner = make(rows)
    count = len(inner.comments)
    assert len(inner.folds) == INNER_FOLDS
    validated = np.concatenate([fold.validation for fold in inner.folds])
    assert sorted(validated.tolist()) == list(range(count))
    for fold in inner.folds:
        assert sorted([*fold.train.tolist(), *fold.validation.tolist()]) == list(range(count))
        assert len(fold.test) == 0
        assert {part.dtype for part in (fold.train, fold.validation, fold.test)} == {
            np.dtype(np.int64)
        }
    assert np.ptp([len(fold.validation) for fold in inner.folds]) <= 1


def test_the_seed_decides_the_folds() -> None:
    one, again, other = (make(seed=seed)[1] for seed in (0, 0, 1))
    assert all(
        np.array_equal(a.train, b.train) for a, b in zip(one.folds, again.folds, strict=True)
    )
    assert not np.array_equal(one.folds[0].validation, other.folds[0].validation)


def test_folds_are_not_blocks_of_neighbouring_rows() -> None:
    _, inner = make()
    assert all(np.ptp(fold.validation) > len(fold.validation) for fold in inner.folds)


@pytest.mark.parametrize(("rows", "enough"), [(11, False), (12, False), (13, True)])
def test_two_rows_a_fold_are_needed(rows: int, enough: bool) -> None:
    comments = replace(make_comments(rows), targets=np.ones((rows, 2), dtype=np.uint8))
    folds = draw_folds(comments, SplitSettings(validation_size=0.0))  # a fifth is for test
    protocol = Protocol(comments, folds)
    assert (len(beside_test(protocol)) >= 2 * INNER_FOLDS) == enough
    if enough:
        assert len(inner_data(protocol, SplitSettings(), 0).comments) == 10
        return
    with pytest.raises(DataError, match="too few to tune on") as caught:
        inner_data(protocol, SplitSettings(), 0)
    assert len(caught.value.problems) == 1


def test_a_fold_without_a_positive_row_is_a_data_error() -> None:
    protocol, inner = make()
    rows = beside_test(protocol)
    without = [rows[row] for row in inner.folds[3].train.tolist()]  # all positives elsewhere
    comments = make_comments(50, positives=tuple(without))
    with pytest.raises(DataError, match="too few positive rows to tune on"):
        inner_data(replace(protocol, comments=comments), SplitSettings(), 0)
    one_more = (*without, rows[int(inner.folds[3].validation[0])])
    enough = inner_data(
        replace(protocol, comments=make_comments(50, positives=one_more)), SplitSettings(), 0
    )
    assert len(enough.folds) == INNER_FOLDS


def test_positives_in_the_test_rows_alone_are_not_enough() -> None:
    protocol, _ = make()
    positives = tuple(protocol.folds[0].test.tolist())
    with pytest.raises(DataError, match="positive"):
        inner_data(replace(protocol, comments=make_comments(50, positives)), SplitSettings(), 0)


def test_a_real_file_without_groups_is_taken_as_it_is(table: Path) -> None:
    comments = read_comments(table)
    inner = inner_data(Protocol(comments, draw_folds(comments)), SplitSettings(), 0)
    assert inner.comments.groups is None
    assert len(inner.comments) == 48


def test_a_search_tears_no_group_that_its_split_file_kept(
    table: Path, checkpoint: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(table)
    frame["video"] = [f"v{row % 20}" for row in range(60)]
    frame.to_csv(table, index=False)
    split = {"split_file": tmp_path / "split.json"}
    grouped = SplitSettings(split="grouped", **split)
    load_dataset(table, ColumnSettings(), grouped).write()
    asked = {
        "data": table, "backbones": ["bert"], "baselines": [], "weights": f"bert={checkpoint}",
        "split": split, "results": tmp_path / "results",
    }  # fmt: skip
    planned = plan_tuning(resolve(build_run_settings({}, asked), Registry.discover()))
    data = planned.definitions[0].data
    groups = row_groups(data.comments)
    for fold in data.folds:
        assert not set(groups[fold.train]) & set(groups[fold.validation])


# --- Comments.take


def test_a_taken_table_is_in_the_order_that_was_asked_for() -> None:
    taken = make_comments(6).take(np.array([4, 0, 5]))
    assert taken.ids == ("id-4", "id-0", "id-5")
    assert taken.groups == ("video-4", None, "video-5")
    assert taken.targets[:, 0].tolist() == [1, 1, 0]
    assert len(taken) == 3
    assert taken.supports == {"IsRude": 2, "IsNever": 0}


def test_no_rows_are_an_empty_table_with_the_same_labels() -> None:
    taken = make_comments(6).take(np.empty(0, dtype=np.int64))
    assert (len(taken), taken.targets.shape, taken.labels) == (0, (0, 2), ("IsRude", "IsNever"))
