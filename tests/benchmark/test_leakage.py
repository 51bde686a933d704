"""Labels of test rows affect neither the training nor any choice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from support import write_table

from toxbench.data.splits import draw_folds
from toxbench.data.table import read_comments
from toxbench.records import CellRecord
from toxbench.settings import SplitSettings
from toxbench.store.files import read_cell

Run = Callable[..., pd.DataFrame]
LABELS = ["IsRude", "IsLong", "IsNever"]
EPOCHS = 4
SPLIT = {"validation_size": 0.3}
Cells = dict[str, tuple[CellRecord, dict[str, np.ndarray]]]


def shuffle_test_labels(source: Path, target: Path) -> None:
    """Write a copy of the table in which the labels of the test rows are permuted."""
    test = draw_folds(read_comments(source), SplitSettings(**SPLIT))[0].test
    frame = pd.read_csv(source)
    permuted = np.random.default_rng(0).permutation(test)
    frame.loc[test, LABELS] = frame.loc[permuted, LABELS].to_numpy()
    frame.to_csv(target, index=False)


def read_cells(results: Path) -> Cells:
    return {path.name: read_cell(path) for path in results.glob("*/cells/*")}


def test_test_labels_affect_no_choice(run: Run, tmp_path: Path) -> None:
    table, shuffled_table = write_table(tmp_path / "table.csv", rows=60), tmp_path / "shuffled.csv"
    shuffle_test_labels(table, shuffled_table)
    options = {
        "split": SPLIT,
        "train": {"epochs": EPOCHS, "max_length": 16, "learning_rate": 1e-2},
    }
    run(data=table, results=tmp_path / "original", **options)
    run(data=shuffled_table, results=tmp_path / "shuffled", **options)
    cells, shuffled_cells = read_cells(tmp_path / "original"), read_cells(tmp_path / "shuffled")
    assert cells.keys() == shuffled_cells.keys()
    assert len(cells) == 3
    test_scores_differ = []
    for name, (record, probabilities) in cells.items():
        shuffled, shuffled_probabilities = shuffled_cells[name]
        assert record.fingerprint != shuffled.fingerprint
        assert record.thresholds == shuffled.thresholds
        assert [(e.train_loss, e.validation) for e in record.epochs] == [
            (e.train_loss, e.validation) for e in shuffled.epochs
        ]
        for part in ("train", "validation", "test"):
            assert probabilities[part].tobytes() == shuffled_probabilities[part].tobytes()
        for rule, parts in record.metrics.items():
            assert shuffled.metrics[rule]["validation"] == parts["validation"]
            assert shuffled.metrics[rule]["train"] == parts["train"]
            test_scores_differ.append(shuffled.metrics[rule]["test"] != parts["test"])
        if record.kind == "backbone":
            assert len(record.epochs) == EPOCHS
            assert set(record.thresholds) == {"0.5", "global", "accuracy", "per-label"}
    assert any(test_scores_differ)  # the permuted labels are the ones that are scored
