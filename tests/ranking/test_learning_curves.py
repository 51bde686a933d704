"""Learning curves of stored cells, and their forecasts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from measured import Table

from toxbench.data.protocol import Protocol, Split
from toxbench.data.splits import train_subsets
from toxbench.ranking.build import load_leaderboard
from toxbench.ranking.learning_curves import (
    CHECK,
    CURVE_SCORES,
    FORECAST,
    MEASURED,
    load_curves,
)
from toxbench.report.learning_curves import curve_table
from toxbench.settings import SplitSettings
from toxbench.store.cells import SUBSETS, CellStore, protocol_record

pytestmark = pytest.mark.slow

FOLDER = "full"


def store_of(folder: Path, table: Table, fraction: float) -> CellStore:
    """Store a protocol with a fraction of the train rows; the table gets its record."""
    fold = table.protocol.folds[0]
    full = Split(*(np.array(part) for part in (fold.train, fold.validation, fold.test)))
    folds = train_subsets(table.comments, [full], fraction, SplitSettings())
    protocol = Protocol(table.comments, folds)
    store = CellStore(folder / FOLDER / ("" if fraction == 1 else f"{SUBSETS}/{fraction}"))
    store.prepare(protocol, synthetic=False)
    table.protocol = protocol_record(protocol, synthetic=False)
    return store


def write_cells(store: CellStore, table: Table, wrong_rows: int, seeds: int = 2) -> None:
    """Store cells that predict all labels right, except for one label in some test rows."""
    for seed in range(seeds):
        record, tensors = table.cell(seed=seed, skill=1.0)
        test = np.array(tensors["test"])
        test[:wrong_rows, 0] = 1 - test[:wrong_rows, 0]
        changes = {"versions": {}}  # it is scored when it is read
        store.write(record.model_copy(update=changes), {**tensors, "test": test})


def write_sizes(folder: Path, wrong_rows: Mapping[float, int], seeds: int = 2) -> CellStore:
    """Store cells with fractions of the 380 train rows, 1 last; return the store of 1."""
    for fraction, wrong in wrong_rows.items():
        table = Table(500)
        store = store_of(folder, table, fraction)
        write_cells(store, table, wrong, seeds)
    return store


def test_forecast_continues_the_power_law(tmp_path: Path) -> None:
    store = write_sizes(tmp_path, {0.25: 40, 0.5: 20, 1: 10})  # of 100 test rows
    ((name, (*measured, check, forecast)),) = load_curves(store)
    assert name == "bert"
    assert [point.kind for point in measured] == [MEASURED] * 3
    assert [point.train_rows for point in measured] == [95, 190, 380]
    scores = [point.scores["subset_accuracy"].value for point in measured]
    assert scores == pytest.approx([0.6, 0.8, 0.9])
    assert (check.kind, check.train_rows) == (CHECK, 380)
    assert check.scores["subset_accuracy"].value == pytest.approx(0.9)
    assert (forecast.kind, forecast.train_rows) == (FORECAST, 760)
    estimate = forecast.scores["subset_accuracy"]
    assert estimate.value == pytest.approx(0.95)
    assert estimate.interval is not None
    low, high = estimate.interval
    assert 0.88 < low < 0.95 < high < 0.99


def test_error_of_the_last_forecast_is_shown(tmp_path: Path) -> None:
    store = write_sizes(tmp_path, {0.25: 40, 0.5: 20, 1: 20})
    table = curve_table(load_curves(store))
    accuracies = {row[2]: row[4] for row in table.rows}
    assert accuracies[CHECK].endswith(" (+0.100)")
    assert not any("(" in accuracies[kind] for kind in (MEASURED, FORECAST))
    (record,) = (r for r in table.records if r["kind"] == CHECK)
    assert record["subset_accuracy_error"] == pytest.approx(0.1)


def test_two_sizes_have_no_forecast(tmp_path: Path) -> None:
    ((_, curve),) = load_curves(write_sizes(tmp_path, {0.5: 20, 1: 10}))
    assert [(point.kind, point.train_rows) for point in curve] == [(MEASURED, 190), (MEASURED, 380)]


def test_measured_points_are_those_of_leaderboards(tmp_path: Path) -> None:
    store = write_sizes(tmp_path, {0.5: 20, 1: 10})
    (row,), ((_, (*_, last)),) = load_leaderboard(store).rows, load_curves(store)
    assert last.scores.keys() == CURVE_SCORES.keys()
    for name, estimate in last.scores.items():
        expected = row.uncertainty[name]
        assert estimate.value == row.mean(name)
        assert estimate.interval == (expected.low, expected.high)


def test_full_results_alone_are_no_curve(tmp_path: Path) -> None:
    assert load_curves(write_sizes(tmp_path, {1: 10})) == []
