"""Stored cells are checked, and scored again when a metric or a rule has changed."""

from pathlib import Path

import pytest
from measured import Table

from toxbench.evaluation.definitions import ACCURACY, GLOBAL, HALF, METRICS, RULES, VERSIONS
from toxbench.evaluation.thresholds import choose_thresholds, fit_calibration
from toxbench.ranking import cells as module
from toxbench.ranking.cells import load_cells
from toxbench.records import Calibration
from toxbench.store.cells import CellStore
from toxbench.store.files import write_rows


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    """A protocol with one cell whose stored micro-F1 is not that of its probabilities."""
    table = Table()
    store = CellStore(tmp_path)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    write_rows(tmp_path, table.comments)
    record, probabilities = table.cell(skill=1.0)
    record.metrics[HALF]["test"]["micro_f1"] = 0.25
    store.write(record, probabilities)
    return store


def stored_f1(store: CellStore) -> float | None:
    (cell,) = load_cells(store)[2]
    return cell[0].metrics[HALF]["test"]["micro_f1"]


def test_current_scores_are_reused(store: CellStore) -> None:
    assert stored_f1(store) == 0.25


@pytest.mark.parametrize("name", ["micro_f1", f"thresholds {GLOBAL}"])
def test_changed_definition_rescores(
    store: CellStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(module, "VERSIONS", {**VERSIONS, name: 99})
    assert stored_f1(store) == 1.0


def test_missing_metrics_are_computed(store: CellStore) -> None:
    record, probabilities = Table().cell(skill=1.0)
    del record.metrics[HALF]["test"]["micro_f1"]
    store.write(record, probabilities)
    assert stored_f1(store) == 1.0


def test_new_metric_appears_for_old_cells(
    store: CellStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERSIONS", {**VERSIONS, "new_metric": 1})
    (cell,) = load_cells(store)[2]
    assert set(cell[0].metrics[HALF]["test"]) == set(METRICS)


def test_cell_of_older_rules_gets_current_thresholds(tmp_path: Path) -> None:
    """Its file has no rule ``accuracy`` and no calibration."""
    table = Table(200)
    store = CellStore(tmp_path)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    write_rows(tmp_path, table.comments)
    versions = {name: v for name, v in VERSIONS.items() if name != f"thresholds {ACCURACY}"}
    half = (0.5,) * len(table.comments.labels)
    old = {HALF: half, GLOBAL: (0.9,) * len(half)}
    record, tensors = table.cell(thresholds=old, versions={**versions, f"thresholds {GLOBAL}": 1})
    assert record.calibration == Calibration()
    store.write(record, tensors)
    ((scored, _),) = load_cells(store)[2]
    targets = table.comments.targets[list(table.protocol.folds[0].validation)]
    assert scored.thresholds == choose_thresholds(targets, tensors["validation"])
    assert scored.calibration == fit_calibration(targets, tensors["validation"])
    assert scored.metrics.keys() == scored.thresholds.keys() == set(RULES)
