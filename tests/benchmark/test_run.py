"""Runs through the Python API."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import read_json, write_table

import toxbench
from toxbench.errors import DataError, SettingsError
from toxbench.store.cells import CellStore, find_store
from toxbench.store.files import read_cell

pytestmark = pytest.mark.slow

Run = Callable[..., pd.DataFrame]


def cells(results: Path) -> dict[str, bytes]:
    """Return file name -> content of each stored cell."""
    return {path.name: path.read_bytes() for path in results.glob("*/cells/*")}


def test_run_writes_cells_and_leaderboard(run: Run, tmp_path: Path) -> None:
    board = run()
    assert set(board["candidate"]) == {"bert", "always-negative", "tfidf-logreg"}
    assert board["micro_f1"].is_monotonic_decreasing
    folder = find_store(tmp_path / "results").folder
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} == {
        "protocol.json", "rows.safetensors", "cells", "cells.parquet",
        "leaderboard.md", "leaderboard.csv", "leaderboard.json", "manifest.json",
        "models",
    }  # fmt: skip
    assert len(cells(tmp_path / "results")) == 3
    pd.testing.assert_frame_equal(toxbench.load(folder).leaderboard, board)


def test_repeated_run_trains_no_cell(run: Run, tmp_path: Path) -> None:
    board = run()
    before = cells(tmp_path / "results")
    pd.testing.assert_frame_equal(run(), board)
    assert cells(tmp_path / "results") == before


def test_more_seeds_add_cells(run: Run, tmp_path: Path) -> None:
    one_seed = run().set_index("candidate")
    before = cells(tmp_path / "results")
    two_seeds = run(seeds=2).set_index("candidate")
    after = cells(tmp_path / "results")
    assert before.items() <= after.items()
    assert (two_seeds.loc["bert", "seeds"], two_seeds.loc["tfidf-logreg", "seeds"]) == (2, 1)
    assert np.isnan(one_seed["train_seconds_sd"].astype(float).loc["bert"])
    assert two_seeds.loc["bert", "train_seconds_sd"] > 0


def test_runs_are_reproducible(run: Run, tmp_path: Path) -> None:
    names = ("first", "second")
    for name in names:
        run(results=tmp_path / name, baselines=[])
    first, second = (read_cell(next((tmp_path / n).glob("*/cells/*")))[1] for n in names)
    assert first.keys() == second.keys() == {"train", "validation", "test"}
    assert all(first[part].tobytes() == second[part].tobytes() for part in first)


def test_scores_match_stored_probabilities(run: Run, table: Path, tmp_path: Path) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    board = run().set_index("candidate")
    store = find_store(tmp_path / "results")
    targets = pd.read_csv(table)[["IsRude", "IsLong", "IsNever"]].to_numpy()
    fold = store.protocol().folds[0]
    for path in (store.folder / "cells").iterdir():
        record, probabilities = read_cell(path)
        row = board.loc[record.key.candidate]
        for part, prefix in ((fold.test, ""), (fold.train, "train_")):
            name = "train" if prefix else "test"
            predicted = probabilities[name] > 0.5
            f1 = f1_score(targets[list(part)], predicted, average="micro", zero_division=0)
            assert row[f"{prefix}micro_f1"] == pytest.approx(f1)
            accuracy = accuracy_score(targets[list(part)], predicted)
            assert row[f"{prefix}subset_accuracy"] == pytest.approx(accuracy)
        gap = row["train_subset_accuracy"] - row["subset_accuracy"]
        assert row["subset_accuracy_gap"] == pytest.approx(gap)


def test_record_describes_training(run: Run, tmp_path: Path) -> None:
    run(baselines=[])
    record, _ = read_cell(next((tmp_path / "results").glob("*/cells/*")))
    assert record.settings is not None
    assert (record.settings.epochs, record.key.seed, len(record.epochs)) == (1, 0, 1)
    assert record.weights is not None
    assert record.weights.source == "local"
    assert record.distribution.startswith("toxbench ")
    assert record.environment.versions["torch"].startswith("2.")
    assert record.parameters
    assert record.cost.peak_memory_bytes
    assert set(record.thresholds) == {"0.5", "global", "accuracy", "per-label"}
    assert str(tmp_path) not in record.model_dump_json()


def test_settings_have_separate_rows(run: Run) -> None:
    run(baselines=[])
    board = run(baselines=[], train={"epochs": 2, "max_length": 32})
    assert set(board["settings"]) == {"epochs=1", "epochs=2"}


def test_notebook_preset_is_original_recipe(run: Run, tmp_path: Path) -> None:
    board = run(preset="notebook", train={})
    assert set(board["candidate"]) == {"bert", "always-negative", "tfidf-logreg"}
    record, probabilities = read_cell(next((tmp_path / "results").glob("*/cells/bert-*")))
    settings = record.settings
    assert settings is not None
    assert (settings.epochs, settings.batch_size, settings.optimizer) == (3, 1, "adam")
    assert (settings.learning_rate, settings.head_learning_rate) == (1e-5, 1e-5)
    assert (settings.padding, settings.max_length, settings.schedule) == (
        "max_length", 128, "constant",
    )  # fmt: skip
    assert (len(record.epochs), record.environment.precision) == (3, "fp32")
    assert probabilities["validation"].shape == (0, 3)
    assert set(record.thresholds) == {"0.5"}
    assert probabilities["train"].shape == (48, 3)


def test_changed_table_has_new_folder(run: Run, tmp_path: Path) -> None:
    run(baselines=["always-negative"], backbones=[], weights="auto")
    write_table(tmp_path / "comments.csv", rows=61)
    run(baselines=["always-negative"], backbones=[], weights="auto")
    assert len(list((tmp_path / "results").glob("*/protocol.json"))) == 2


def test_file_format_does_not_change_protocol(run: Run, tmp_path: Path) -> None:
    run(baselines=["always-negative"], backbones=[], weights="auto")
    frame = pd.read_csv(tmp_path / "comments.csv")
    frame.to_parquet(tmp_path / "other.parquet")
    run(
        data=tmp_path / "other.parquet", baselines=["always-negative"], backbones=[], weights="auto"
    )
    assert len(list((tmp_path / "results").glob("*/protocol.json"))) == 1


def test_comments_are_not_stored(run: Run, tmp_path: Path) -> None:
    run()
    for path in (tmp_path / "results").rglob("*"):
        if path.is_file():
            assert b"you fool" not in path.read_bytes()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"backbones": ["brt"]}, SettingsError),
        ({"baselines": ["unknown"]}, SettingsError),
        ({"train": {"learning_rat": 1}}, SettingsError),
        ({"train": {"max_length": 131}}, SettingsError),
        ({"train": {"learning_rate": float("nan")}}, SettingsError),
        ({"split": {"test_size": 1.5}}, SettingsError),
        ({"weights": "stand-in,distilbert=x"}, SettingsError),
        ({"seeds": 0}, SettingsError),
        ({"preset": "notebok"}, SettingsError),
        ({"columns": {"text_column": "txt"}}, DataError),
        ({"data": "missing.csv"}, DataError),
    ],
)
def test_invalid_input_is_refused_before_training(
    run: Run, tmp_path: Path, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run(**options)
    assert cells(tmp_path / "results") == {}


def test_arguments_override_config_file(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "toxbench.toml"
    config.write_text(
        "seeds = 2\n[train]\nepochs = 3\nmax_length = 16\n[backbone.bert]\nbatch_size = 5\n",
        encoding="utf-8",
    )
    run(config=config, baselines=[], train={"epochs": 1})
    store: CellStore = find_store(tmp_path / "results")
    records = store.records()
    assert [record.key.seed for record in records] == [0, 1]
    settings = records[0].settings
    assert settings is not None
    assert (settings.epochs, settings.max_length, settings.batch_size) == (1, 16, 5)


def test_stored_protocol_describes_table(run: Run, tmp_path: Path) -> None:
    run(backbones=[], baselines=["always-negative"], weights="auto")
    stored = read_json(find_store(tmp_path / "results").protocol_path)
    assert stored["rows"] == 60
    assert stored["synthetic"] is False
