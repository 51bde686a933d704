"""Saved models: which ones a run keeps, and the content of their files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import toxbench
from toxbench.errors import SettingsError
from toxbench.evaluation.thresholds import calibrate
from toxbench.records import Calibration
from toxbench.store.cells import CellStore, find_store
from toxbench.store.files import read_cell
from toxbench.store.models import ModelRecord, check_model, read_model_record, validation_score

pytestmark = pytest.mark.slow

Run = Callable[..., pd.DataFrame]
SMALL = {"baselines": [], "split": {"validation_size": 0.25}}


def results_store(tmp_path: Path, name: str = "results") -> CellStore:
    return find_store(tmp_path / name)


def read_models(store: CellStore) -> list[ModelRecord]:
    for path in store.models.paths():
        check_model(path, read_model_record(path))
    return store.models.records()


def test_best_model_is_saved_by_default(run: Run, tmp_path: Path) -> None:
    run(**SMALL, seeds=3)
    store = results_store(tmp_path)
    (saved,) = read_models(store)
    cells = {record.key: record for record in store.records()}
    scores = {key.seed: validation_score(record) for key, record in cells.items()}
    best = max(scores, key=lambda seed: (scores[seed] or 0, -seed))
    assert (saved.key.seed, saved.score) == (best, scores[best])
    cell = cells[saved.key]
    assert saved.calibration == cell.calibration != Calibration()
    for rule, thresholds in cell.thresholds.items():
        assert saved.thresholds[rule] == tuple(calibrate(np.array(thresholds), cell.calibration))
    assert saved.labels == ("IsRude", "IsLong", "IsNever")
    assert (saved.max_length, saved.distribution.split()[0]) == (32, "toxbench")
    assert {path.name for path in store.models.path(saved.key).iterdir()} >= {
        "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json",
        "toxbench.json", "README.md", "probabilities.safetensors",
    }  # fmt: skip


def test_saving_does_not_change_cells(run: Run, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "seeds": 2}
    run(**options, save_models="none", results=tmp_path / "none")
    run(**options, save_models="all", results=tmp_path / "all")
    run(**options, save_models="best", results=tmp_path / "best", workers=1)
    assert [
        len(read_models(results_store(tmp_path, name))) for name in ("none", "all", "best")
    ] == [0, 2, 1]
    assert not (results_store(tmp_path, "none").folder / "models").exists()
    (best,) = read_models(results_store(tmp_path, "best"))
    ranked = read_models(results_store(tmp_path, "all"))
    assert (best.key, best.score) == (ranked[0].key, ranked[0].score)
    files = [results_store(tmp_path, name).models.path(best.key) for name in ("best", "all")]
    assert len({(folder / "model.safetensors").read_bytes() for folder in files}) == 1
    contents = []
    for name in ("none", "all", "best"):
        record, tensors = read_cell(results_store(tmp_path, name).path(best.key))
        content = record.model_dump(exclude={"cost", "environment", "epochs"})
        contents.append((content, {part: values.tobytes() for part, values in tensors.items()}))
    assert contents[0] == contents[1] == contents[2]


def test_stored_cells_are_not_retrained_for_models(run: Run, tmp_path: Path) -> None:
    run(**SMALL, save_models="none")
    store = results_store(tmp_path)
    (cell,) = store.paths()
    before = cell.read_bytes()
    run(**SMALL)
    assert read_models(store) == []
    assert cell.read_bytes() == before
    cell.unlink()
    run(**SMALL)
    assert len(read_models(store)) == 1
    with pytest.raises(SettingsError, match="save_models"):
        run(**SMALL, save_models="some")


def test_card_reports_rounding_of_bf16(run: Run, tmp_path: Path) -> None:
    run(**SMALL, train={"epochs": 1, "max_length": 32, "precision": "bf16"})
    run(**SMALL, train={"epochs": 1, "max_length": 32, "precision": "fp32"})
    store = results_store(tmp_path)
    by_precision = {record.precision: record for record in read_models(store)}
    cards = {}
    for precision, record in by_precision.items():
        folder = store.models.path(record.key)
        _, stored = read_cell(store.path(record.key))
        exact = load_file(folder / "probabilities.safetensors")["test"]
        difference = float(np.abs(exact - stored["test"]).max())
        assert (difference == 0) == (precision == "fp32")
        cards[precision] = (folder / "README.md").read_text(encoding="utf-8")
        if difference:
            assert f"at most {difference:.2g} in a test probability" in cards[precision]
    assert "fp32, the same as the stored probabilities" in cards["fp32"]


@pytest.mark.faults(40)
def test_cards_escape_label_names(
    run: Run, table: Path, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("IsRude", "Is\x1b[31m\u202eRude"), encoding="utf-8")
    run(**SMALL)
    (stored,) = tmp_path.glob("results/*/models/*/README.md")
    results, exported = str(tmp_path / "results"), tmp_path / "exported"
    assert command("export", str(exported), "--results", results) == (0, "")
    for card in (stored, exported / "README.md"):
        content = card.read_text(encoding="utf-8")
        assert "u202eRude" in content
        assert {c for c in content if not c.isprintable()} == {"\n"}
    for path in exported.glob("*.json"):
        assert "\u202e" not in path.read_text(encoding="utf-8"), path.name


def test_card_has_scores_but_no_comments(run: Run, table: Path, tmp_path: Path) -> None:
    run(**SMALL)
    store = results_store(tmp_path)
    (saved,) = read_models(store)
    folder = store.models.path(saved.key)
    card = (folder / "README.md").read_text(encoding="utf-8")
    record, _ = read_cell(store.path(saved.key))
    test = record.metrics["0.5"]["test"]
    assert f"{test['micro_f1']:.3f}" in card
    assert store.protocol().data_fingerprint in card
    assert "Do not use it for decisions about people" in card
    assert "IsNever" in card
    texts = pd.read_csv(table)["text"]
    for path in folder.iterdir():
        if path.suffix in {".md", ".json"}:
            content = path.read_text(encoding="utf-8")
            assert str(tmp_path) not in content
            assert not any(text in content for text in texts)


def test_local_paths_are_not_saved(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        content |= {"_name_or_path": "private-name", "cache": "/somewhere/private-name"}
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    run(**SMALL, weights=f"bert={folder}")
    (model,) = results_store(tmp_path).models.paths()
    for path in model.iterdir():
        assert b"private-name" not in path.read_bytes()
    assert len(toxbench.predict(tmp_path / "results", ["you fool"])) == 1


@pytest.mark.faults(39)
def test_links_in_models_folder_are_refused(run: Run, tmp_path: Path) -> None:
    from toxbench.errors import StorageError

    run(**SMALL)
    store = results_store(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (store.models.folder / "bert-x-fold0-seed9").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symbolic link"):
        run(**SMALL, seeds=2)
    assert list((tmp_path / "elsewhere").iterdir()) == []
