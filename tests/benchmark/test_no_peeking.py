"""The labels of the test rows change nothing that is chosen, and nothing that is learnt."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from support import write_table

from toxbench.data.splits import draw_folds
from toxbench.data.table import read_comments
from toxbench.records import CellRecord
from toxbench.settings import SplitSettings
from toxbench.store.cell_file import read_cell

Run = Callable[..., pd.DataFrame]
LABELS = ["IsRude", "IsLong", "IsNever"]
EPOCHS = 4
SPLIT = {"validation_size": 0.3}
Cells = dict[str, tuple[CellRecord, dict[str, np.ndarray]]]


def other_test_labels(data: Path, changed: Path) -> None:
    """Write the table once more, with its test rows' labels dealt to each other."""
    test = draw_folds(read_comments(data), SplitSettings(**SPLIT))[0].test
    frame = pd.read_csv(data)
    dealt = np.random.default_rng(0).permutation(test)
    frame.loc[test, LABELS] = frame.loc[dealt, LABELS].to_numpy()
    frame.to_csv(changed, index=False)


def stored(results: Path) -> Cells:
    return {path.name: read_cell(path) for path in results.glob("*/cells/*")}


def test_the_labels_of_the_test_rows_change_no_choice(run: Run, tmp_path: Path) -> None:
    data, changed = write_table(tmp_path / "table.csv", rows=60), tmp_path / "changed.csv"
    other_test_labels(data, changed)
    options = {
        "split": SPLIT,
        "train": {"epochs": EPOCHS, "max_length": 16, "learning_rate": 1e-2},
    }
    run(data=data, results=tmp_path / "one", **options)
    run(data=changed, results=tmp_path / "other", **options)
    one, other = stored(tmp_path / "one"), stored(tmp_path / "other")
    assert one.keys() == other.keys()
    assert len(one) == 3
    seen = []
    for name, (record, probabilities) in one.items():
        twin, twins = other[name]
        assert record.fingerprint != twin.fingerprint
        assert record.best_epoch == twin.best_epoch
        assert record.thresholds == twin.thresholds
        assert [(e.train_loss, e.validation) for e in record.epochs] == [
            (e.train_loss, e.validation) for e in twin.epochs
        ]
        for part in ("train", "validation", "test"):
            assert probabilities[part].tobytes() == twins[part].tobytes()
        for rule, parts in record.metrics.items():
            assert twin.metrics[rule]["validation"] == parts["validation"]
            assert twin.metrics[rule]["train"] == parts["train"]
            seen.append(twin.metrics[rule]["test"] != parts["test"])
        if record.kind == "backbone":
            assert len(record.epochs) == EPOCHS
            assert set(record.thresholds) == {"0.5", "global", "per-label"}
    assert any(seen)  # the labels that were dealt are those that are scored
