"""Which models a run saves, what is in them, and that saving changes nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import toxbench
from toxbench.errors import SettingsError
from toxbench.store.cell_file import read_cell
from toxbench.store.cells import CellStore, find_store
from toxbench.store.models import ModelRecord, check_model, read_model_record, validation_score

Run = Callable[..., pd.DataFrame]
SMALL = {"baselines": [], "split": {"validation_size": 0.25}}


def store_in(tmp_path: Path, name: str = "results") -> CellStore:
    return find_store(tmp_path / name)


def models(store: CellStore) -> list[ModelRecord]:
    for path in store.models.paths():
        check_model(path, read_model_record(path))
    return store.models.records()


def test_the_best_on_validation_rows_is_kept_by_default(run: Run, tmp_path: Path) -> None:
    run(**SMALL, seeds=3)
    store = store_in(tmp_path)
    (saved,) = models(store)
    cells = {record.key: record for record in store.records()}
    scores = {key.seed: validation_score(record) for key, record in cells.items()}
    best = max(scores, key=lambda seed: (scores[seed] or 0, -seed))
    assert (saved.key.seed, saved.score) == (best, scores[best])
    assert saved.thresholds == cells[saved.key].thresholds
    assert saved.labels == ("IsRude", "IsLong", "IsNever")
    assert (saved.max_length, saved.distribution.split()[0]) == (32, "toxbench")
    assert {path.name for path in store.models.path(saved.key).iterdir()} >= {
        "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json",
        "toxbench.json", "README.md", "probabilities.safetensors",
    }  # fmt: skip


def test_all_none_and_workers(run: Run, tmp_path: Path) -> None:
    one: dict[str, Any] = {**SMALL, "seeds": 2}
    run(**one, save_models="none", results=tmp_path / "none")
    run(**one, save_models="all", results=tmp_path / "all")
    run(**one, save_models="best", results=tmp_path / "best", workers=1)
    assert [len(models(store_in(tmp_path, name))) for name in ("none", "all", "best")] == [0, 2, 1]
    assert not (store_in(tmp_path, "none").folder / "models").exists()
    (best,) = models(store_in(tmp_path, "best"))
    ranked = models(store_in(tmp_path, "all"))
    assert (best.key, best.score) == (ranked[0].key, ranked[0].score)
    files = [store_in(tmp_path, name).models.path(best.key) for name in ("best", "all")]
    assert len({(folder / "model.safetensors").read_bytes() for folder in files}) == 1
    # What a cell says does not depend on saving.
    said = []
    for name in ("none", "all", "best"):
        record, tensors = read_cell(store_in(tmp_path, name).path(best.key))
        content = record.model_dump(exclude={"cost", "environment", "epochs"})
        said.append((content, {part: values.tobytes() for part, values in tensors.items()}))
    assert said[0] == said[1] == said[2]


def test_a_stored_cell_is_not_trained_again_for_its_model(run: Run, tmp_path: Path) -> None:
    run(**SMALL, save_models="none")
    store = store_in(tmp_path)
    (cell,) = store.paths()
    before = cell.read_bytes()
    run(**SMALL)
    assert models(store) == []
    assert cell.read_bytes() == before
    cell.unlink()
    run(**SMALL)
    assert len(models(store)) == 1
    with pytest.raises(SettingsError, match="save_models"):
        run(**SMALL, save_models="some")


def test_probabilities_in_fp32_and_how_far_the_cell_is_from_them(run: Run, tmp_path: Path) -> None:
    run(**SMALL, train={"epochs": 1, "max_length": 32, "precision": "bf16"})
    run(**SMALL, train={"epochs": 1, "max_length": 32, "precision": "fp32"})
    store = store_in(tmp_path)
    by_precision = {record.precision: record for record in models(store)}
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


def test_a_card_says_what_it_scored_and_holds_no_comment(
    run: Run, table: Path, tmp_path: Path
) -> None:
    run(**SMALL)
    store = store_in(tmp_path)
    (saved,) = models(store)
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


def test_names_of_this_machine_are_left_out(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    import json
    import shutil

    mine = tmp_path / "mine"
    shutil.copytree(checkpoint, mine)
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((mine / name).read_text(encoding="utf-8"))
        content |= {"_name_or_path": "private-name", "cache": "/somewhere/private-name"}
        (mine / name).write_text(json.dumps(content), encoding="utf-8")
    run(**SMALL, weights=f"bert={mine}")
    (folder,) = store_in(tmp_path).models.paths()
    for path in folder.iterdir():
        assert b"private-name" not in path.read_bytes()
    assert len(toxbench.predict(tmp_path / "results", ["you fool"])) == 1


@pytest.mark.faults(39)
def test_a_link_among_models_is_refused(run: Run, tmp_path: Path) -> None:
    from toxbench.errors import StorageError

    run(**SMALL)
    store = store_in(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (store.models.folder / "bert-x-fold0-seed9").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symbolic link"):
        run(**SMALL, seeds=2)
    assert list((tmp_path / "elsewhere").iterdir()) == []
