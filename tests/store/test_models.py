"""Stored models: which are kept in any order of cells, and repair of damaged ones."""

import itertools
import json
import random
from pathlib import Path

import pytest

from toxbench.errors import NewerVersionError, StorageError
from toxbench.records import Calibration, CellKey, WeightsRecord
from toxbench.store.models import (
    ModelRecord,
    ModelStore,
    SavePolicy,
    check_model,
    read_model_record,
)


def make_model(
    score: float | None, seed: int = 0, saved: SavePolicy = "best", **key: object
) -> ModelRecord:
    return ModelRecord(
        key=CellKey(**{"candidate": "bert", "digest": "d", "seed": seed, **key}),  # type: ignore[arg-type]
        saved=saved,
        fingerprint="f",
        synthetic=True,
        distribution="toxbench 1",
        weights=WeightsRecord(source="local", label="x", identity="y"),
        tuned=False,
        labels=("IsRude",),
        thresholds={"0.5": (0.5,)},
        calibration=Calibration(),
        max_length=16,
        long_text="head",
        precision="fp32",
        score=score,
    )


def save(store: ModelStore, record: ModelRecord) -> None:
    """Save a model as a run does, without its cell."""
    temporary = store.temporary_path(record.key)
    temporary.mkdir(parents=True)
    (temporary / "model.safetensors").write_bytes(b"weights")
    store.publish(record, lambda: "a card")
    store.remove_superseded(record.key)


def stored_seeds(store: ModelStore) -> list[int]:
    """Return the seeds of all models, the best first; check that no temporary folder is left."""
    assert [p.name for p in store.folder.iterdir() if p.name.startswith(".")] == []
    return [record.key.seed for record in store.records()]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.3, 0.2], 1),
        ([0.3, 0.3, 0.2], 0),
        ([None, 0.0, None], 1),
        ([None, None], 0),
        ([0.2, 0.2, 0.2, 0.2], 0),
    ],
)
def test_order_does_not_change_the_best_model(
    tmp_path: Path, scores: list[float | None], best: int
) -> None:
    seeds = range(8, 8 + len(scores))  # 8 to 11 sort differently as text and as numbers
    for number, order in enumerate(itertools.permutations(seeds)):
        store = ModelStore(tmp_path / str(number))
        for seed in order:
            save(store, make_model(scores[seed - 8], seed))
        assert stored_seeds(store) == [8 + best]


def test_best_keeps_one_model_per_candidate(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for candidate, digest in (("bert", "d"), ("bert", "e"), ("bert-large", "d")):
        for seed in range(2):
            save(store, make_model(seed / 10, seed, candidate=candidate, digest=digest))
    assert stored_seeds(store) == [1, 1, 1]
    for seed in range(2, 5):
        save(store, make_model(0.0, seed, saved="all"))
    save(store, make_model(0.9, 5))
    assert stored_seeds(store) == [5, 1, 1, 2, 3, 4]  # models saved as "all" are never removed


def test_repair_removes_models_without_cells(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    save(store, make_model(0.3, 0, saved="all"))
    save(store, make_model(0.4, 1, saved="all"))
    save(store, make_model(0.5, 2))
    assert list(store.repair(lambda key: key.seed != 2)) == []
    assert stored_seeds(store) == [1, 0]


def test_repair_removes_superseded_models(tmp_path: Path) -> None:
    """A run may be killed after it stored the better cell, before it removed the other model."""
    store = ModelStore(tmp_path / "models")
    save(store, make_model(0.2, 0))
    (store.path(make_model(0, 0).key)).rename(tmp_path / "aside")
    save(store, make_model(0.3, 1))
    (tmp_path / "aside").rename(store.path(make_model(0, 0).key))
    assert list(store.repair(lambda key: True)) == []
    assert stored_seeds(store) == [1]


def test_any_flipped_bit_is_detected(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    save(store, make_model(0.5))
    (folder,) = store.paths()
    record = read_model_record(folder)
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for _ in range(20):
            damaged = bytearray(content)
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
            path.write_bytes(damaged)
            with pytest.raises(StorageError, match=r"start the same toxbench run again|newer"):
                check_model(folder, read_model_record(folder))
        path.write_bytes(content[:-1])
        with pytest.raises(StorageError, match=r"has a wrong checksum; remove it and its cell"):
            check_model(folder, read_model_record(folder))
        path.unlink()
        with pytest.raises(StorageError, match=rf"{path.name} is missing; remove it and its cell"):
            check_model(folder, read_model_record(folder))
        path.write_bytes(content)
    check_model(folder, record)


def test_a_model_with_damaged_record_is_moved(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    save(store, make_model(0.5))
    (folder,) = store.paths()
    (folder / "toxbench.json").write_text("{}", encoding="utf-8")
    (message,) = store.repair(lambda key: True)
    assert f"{folder} was damaged and is now {folder.name}.corrupt" in message
    assert stored_seeds(store) == []
    assert (tmp_path / f"{folder.name}.corrupt" / "model.safetensors").is_file()
    assert list(store.repair(lambda key: True)) == []


@pytest.mark.faults(38)
def test_models_of_newer_versions_are_unchanged(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    save(store, make_model(0.5))
    (folder,) = store.paths()
    path = folder / "toxbench.json"
    newer = json.loads(path.read_text(encoding="utf-8")) | {"schema_version": 99, "new": 1}
    path.write_text(json.dumps(newer), encoding="utf-8")
    with pytest.raises(NewerVersionError, match="upgrade"):
        list(store.repair(lambda key: True))
    assert json.loads(path.read_text(encoding="utf-8")) == newer
