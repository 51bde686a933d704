"""Saved models on the disk: which are kept, whatever the order, and what of damaged ones."""

import itertools
import json
import random
from pathlib import Path

import pytest

from toxbench.errors import NewerVersionError, StorageError
from toxbench.records import CellKey, WeightsRecord
from toxbench.store.models import ModelRecord, ModelStore, Saved, check_model, read_model


def model(score: float | None, seed: int = 0, saved: Saved = "best", **key: object) -> ModelRecord:
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
        max_length=16,
        precision="fp32",
        score=score,
    )


def take(store: ModelStore, record: ModelRecord) -> None:
    """Do what a run does for a cell, apart from the cell."""
    made = store.making(record.key)
    made.mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights")
    store.take(record, lambda: "a card")
    store.remove_beaten(record.key)


def kept(store: ModelStore) -> list[int]:
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
def test_the_best_is_kept_whatever_ends_first(
    tmp_path: Path, scores: list[float | None], best: int
) -> None:
    seeds = range(8, 8 + len(scores))  # of 8, 9, 10 and 11, names sort otherwise than numbers
    for number, order in enumerate(itertools.permutations(seeds)):
        store = ModelStore(tmp_path / str(number))
        for seed in order:
            take(store, model(scores[seed - 8], seed))
        assert kept(store) == [8 + best]


def test_every_backbone_keeps_one_and_all_are_all(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for candidate, digest in (("bert", "d"), ("bert", "e"), ("bert-large", "d")):
        for seed in range(2):
            take(store, model(seed / 10, seed, candidate=candidate, digest=digest))
    assert kept(store) == [1, 1, 1]
    for seed in range(2, 5):
        take(store, model(0.0, seed, saved="all"))
    take(store, model(0.9, 5))
    assert kept(store) == [5, 1, 1, 2, 3, 4]  # what was asked to be kept stays


def test_a_model_without_its_cell_goes_and_a_beaten_one_too(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    take(store, model(0.3, 0, saved="all"))
    take(store, model(0.4, 1, saved="all"))
    take(store, model(0.5, 2))
    assert list(store.repair(lambda key: key.seed != 2)) == []
    assert kept(store) == [1, 0]
    # Killed after the better cell was stored, and before the beaten model was removed.
    store = ModelStore(tmp_path / "other")
    take(store, model(0.2, 0))
    (store.path(model(0, 0).key)).rename(tmp_path / "aside")
    take(store, model(0.3, 1))
    (tmp_path / "aside").rename(store.path(model(0, 0).key))
    assert list(store.repair(lambda key: True)) == []
    assert kept(store) == [1]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    take(store, model(0.5))
    (folder,) = store.paths()
    record = read_model(folder)
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for _ in range(20):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(7)
            path.write_bytes(damaged)
            with pytest.raises(StorageError, match=r"start the same toxbench run again|newer"):
                check_model(folder, read_model(folder))
        path.write_bytes(whole[:-1])
        with pytest.raises(StorageError, match=r"is not as it was written; remove it and its cell"):
            check_model(folder, read_model(folder))
        path.unlink()
        with pytest.raises(StorageError, match=rf"{path.name} is missing; remove it and its cell"):
            check_model(folder, read_model(folder))
        path.write_bytes(whole)
    check_model(folder, record)


def test_a_damaged_record_is_moved_aside_with_its_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    take(store, model(0.5))
    (folder,) = store.paths()
    (folder / "toxbench.json").write_text("{}", encoding="utf-8")
    (said,) = store.repair(lambda key: True)
    assert f"{folder} was damaged and is now {folder.name}.corrupt" in said
    assert kept(store) == []
    assert (tmp_path / f"{folder.name}.corrupt" / "model.safetensors").is_file()
    assert list(store.repair(lambda key: True)) == []


@pytest.mark.faults(38)
def test_a_newer_one_is_left_as_it_is(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    take(store, model(0.5))
    (folder,) = store.paths()
    path = folder / "toxbench.json"
    newer = json.loads(path.read_text(encoding="utf-8")) | {"schema_version": 99, "new": 1}
    path.write_text(json.dumps(newer), encoding="utf-8")
    with pytest.raises(NewerVersionError, match="upgrade"):
        list(store.repair(lambda key: True))
    assert json.loads(path.read_text(encoding="utf-8")) == newer
