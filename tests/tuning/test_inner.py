"""The rows of a search: all rows except the test rows."""

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
from toxbench.tuning.spec import make_inner_data
from toxbench.tuning.tune import plan_tuning


def make_comments(rows: int, positives: tuple[int, ...] | None = None) -> TextDataset:
    """Make a table of distinct rows; every second row is positive by default."""
    targets = np.zeros((rows, 2), dtype=np.uint8)
    targets[list(range(0, rows, 2) if positives is None else positives), 0] = 1
    return TextDataset(
        name="comments.csv",
        ids=tuple(f"id-{row}" for row in range(rows)),
        texts=tuple(f"comment number {row} of them" for row in range(rows)),
        codes=targets,
        labels=("IsRude", "IsNever"),
        groups=tuple(f"video-{row}" if row % 3 else None for row in range(rows)),
        ignored_columns=(),
        columns={},
    )


def make_data(rows: int = 50, seed: int = 0, **split: float) -> tuple[Protocol, Protocol]:
    comments, settings = make_comments(rows), SplitSettings(**split)  # type: ignore[arg-type]
    protocol = Protocol(comments, draw_folds(comments, settings))
    return protocol, make_inner_data(protocol, settings, seed)


def rows_without_test(protocol: Protocol) -> list[int]:
    fold = protocol.folds[0]
    return sorted([*fold.train.tolist(), *fold.validation.tolist()])


@pytest.mark.parametrize("validation_size", [0.0, 0.05, 0.5])
def test_rows_are_train_and_validation_rows(validation_size: float) -> None:
    protocol, inner = make_data(validation_size=validation_size)
    rows = rows_without_test(protocol)
    table = protocol.comments
    assert inner.comments.ids == tuple(table.ids[row] for row in rows)
    assert inner.comments.texts == tuple(table.texts[row] for row in rows)
    assert inner.comments.groups == tuple((table.groups or ())[row] for row in rows)
    assert np.array_equal(inner.comments.targets, table.targets[rows])
    assert inner.comments.labels == table.labels


def test_data_has_no_test_rows() -> None:
    protocol, inner = make_data()
    content = pickle.dumps(inner)
    for row in protocol.folds[0].test.tolist():
        assert f"id-{row}".encode() not in {name.encode() for name in inner.comments.ids}
        assert f"comment number {row} of them".encode() not in content
    assert f"comment number {rows_without_test(protocol)[0]} of them".encode() in content


def test_data_does_not_depend_on_test_rows() -> None:
    protocol, inner = make_data()
    targets = protocol.comments.targets.copy()
    targets[protocol.folds[0].test] ^= 1
    texts = list(protocol.comments.texts)
    for row in protocol.folds[0].test.tolist():
        texts[row] = "changed"
    comments = replace(protocol.comments, codes=targets, texts=tuple(texts))
    changed = make_inner_data(replace(protocol, comments=comments), SplitSettings(), 0)
    assert changed.comments.texts == inner.comments.texts
    assert changed.comments.targets.tobytes() == inner.comments.targets.tobytes()
    for fold, changed_fold in zip(inner.folds, changed.folds, strict=True):
        assert np.array_equal(fold.train, changed_fold.train)


def test_inner_targets_are_read_only() -> None:
    _, inner = make_data()
    with pytest.raises(ValueError, match="read-only"):
        inner.comments.targets[:] = 1


@pytest.mark.parametrize("rows", [13, 50, 61])
def test_the_folds_partition_the_rows(rows: int) -> None:
    _, inner = make_data(rows)
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
    first, repeated, different = (make_data(seed=seed)[1] for seed in (0, 0, 1))
    assert all(
        np.array_equal(a.train, b.train) for a, b in zip(first.folds, repeated.folds, strict=True)
    )
    assert not np.array_equal(first.folds[0].validation, different.folds[0].validation)


def test_folds_are_not_blocks_of_rows() -> None:
    _, inner = make_data()
    assert all(np.ptp(fold.validation) > len(fold.validation) for fold in inner.folds)


@pytest.mark.parametrize(("rows", "is_enough"), [(11, False), (12, False), (13, True)])
def test_two_rows_a_fold_are_needed(rows: int, is_enough: bool) -> None:
    comments = replace(make_comments(rows), codes=np.ones((rows, 2), dtype=np.uint8))
    folds = draw_folds(comments, SplitSettings(validation_size=0.0))  # a fifth is for test
    protocol = Protocol(comments, folds)
    assert (len(rows_without_test(protocol)) >= 2 * INNER_FOLDS) == is_enough
    if is_enough:
        assert len(make_inner_data(protocol, SplitSettings(), 0).comments) == 10
        return
    with pytest.raises(DataError, match="too few to tune on") as raised:
        make_inner_data(protocol, SplitSettings(), 0)
    assert len(raised.value.problems) == 1


def test_fold_without_a_positive_row_is_refused() -> None:
    protocol, inner = make_data()
    rows = rows_without_test(protocol)
    positives = [rows[row] for row in inner.folds[3].train.tolist()]  # no validation row of fold 3
    comments = make_comments(50, positives=tuple(positives))
    with pytest.raises(DataError, match="too few positive rows to tune on"):
        make_inner_data(replace(protocol, comments=comments), SplitSettings(), 0)
    sufficient = (*positives, rows[int(inner.folds[3].validation[0])])
    comments = make_comments(50, positives=sufficient)
    data = make_inner_data(replace(protocol, comments=comments), SplitSettings(), 0)
    assert len(data.folds) == INNER_FOLDS


def test_positives_only_in_test_rows_are_refused() -> None:
    protocol, _ = make_data()
    positives = tuple(protocol.folds[0].test.tolist())
    with pytest.raises(DataError, match="positive"):
        make_inner_data(
            replace(protocol, comments=make_comments(50, positives)), SplitSettings(), 0
        )


def test_file_without_groups_has_none(table: Path) -> None:
    comments = read_comments(table)
    inner = make_inner_data(Protocol(comments, draw_folds(comments)), SplitSettings(), 0)
    assert inner.comments.groups is None
    assert len(inner.comments) == 48


def test_inner_folds_keep_groups_of_split_file(
    table: Path, checkpoint: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(table)
    frame["video"] = [f"v{row % 20}" for row in range(60)]
    frame.to_csv(table, index=False)
    split = {"split_file": tmp_path / "split.json"}
    grouped = SplitSettings(split="grouped", **split)
    load_dataset(table, ColumnSettings(), grouped).write()
    options = {
        "data": table, "backbones": ["bert"], "baselines": [], "weights": f"bert={checkpoint}",
        "split": split, "results": tmp_path / "results",
    }  # fmt: skip
    planned = plan_tuning(resolve(build_run_settings({}, options), Registry.discover()))
    data = planned.specs[0].data
    groups = row_groups(data.comments)
    for fold in data.folds:
        assert not set(groups[fold.train]) & set(groups[fold.validation])


# --- TextDataset.take


def test_take_keeps_the_requested_order() -> None:
    subset = make_comments(6).take(np.array([4, 0, 5]))
    assert subset.ids == ("id-4", "id-0", "id-5")
    assert subset.groups == ("video-4", None, "video-5")
    assert subset.targets[:, 0].tolist() == [1, 1, 0]
    assert len(subset) == 3
    assert subset.supports == {"IsRude": 2, "IsNever": 0}


def test_take_no_rows_keeps_the_labels() -> None:
    subset = make_comments(6).take(np.empty(0, dtype=np.int64))
    assert (len(subset), subset.targets.shape, subset.labels) == (0, (0, 2), ("IsRude", "IsNever"))
