"""Stored cells: they are read as written, or an error reports the damage."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toxbench.data.protocol import Protocol
from toxbench.data.splits import draw_folds
from toxbench.data.table import TextDataset
from toxbench.errors import StorageError, TryAgainError
from toxbench.records import (
    PARTS,
    CellKey,
    CellRecord,
    Cost,
    Environment,
    EpochRecord,
    WeightsRecord,
)
from toxbench.settings import TrainSettings
from toxbench.store.cells import CellStore, find_store
from toxbench.store.files import PartProbabilities, read_cell
from toxbench.store.folder import DamagedError

PROSE = "text of a secret comment"


def make_protocol(name: str = "comments.csv", rows: int = 20) -> Protocol:
    targets = np.zeros((rows, 2), dtype=np.uint8)
    targets[::2, 0] = 1
    comments = TextDataset(
        name=name,
        ids=tuple(f"id{row}" for row in range(rows)),
        texts=tuple(f"{PROSE} {row}" for row in range(rows)),
        codes=targets,
        labels=("IsRude", "IsNever"),
        groups=None,
        ignored_columns=(),
        columns={},
    )
    return Protocol(comments, draw_folds(comments))


def make_cell(seed: int = 0) -> CellRecord:
    scores: dict[str, float | None] = {"micro_f1": 1 / 3, "micro_roc_auc": None}
    return CellRecord(
        key=CellKey(candidate="bert", digest="0123456789ab", seed=seed),
        kind="backbone",
        stochastic=True,
        distribution="tóxbench 0.1.0",
        fingerprint="f" * 64,
        weights=WeightsRecord(source="stand-in", label="stand-in: ∅", identity="abc"),
        parameters=22_700_000,
        settings=TrainSettings(learning_rate=1e-5),
        environment=Environment(
            device="cpu", device_name="a CPU", precision="fp32", threads=1,
            versions={"torch": "2"}, commit=None,
        ),
        cost=Cost(
            train_seconds=0.1, evaluation_seconds=0.2, comments_per_second=None,
            peak_memory_bytes=2**40,
        ),
        epochs=(EpochRecord(epoch=1, train_loss=0.7, validation=scores, seconds=1.5),),
        truncated_share=0.25,
        thresholds={"0.5": (0.5, 0.5)},
        versions={},
        metrics={"0.5": dict.fromkeys(PARTS, scores)},
        per_label={"0.5": ()},
        has_constant_predictions=False,
    )  # fmt: skip


def make_probabilities(validation_rows: int = 2) -> PartProbabilities:
    generator = np.random.default_rng(0)
    rows = {"train": 5, "validation": validation_rows, "test": 3}
    return {part: generator.random((rows[part], 2), dtype=np.float32) for part in PARTS}


def prepared_store(results: Path, protocol: Protocol) -> CellStore:
    store = CellStore.for_protocol(results, protocol.comments.name, protocol.fingerprint)
    store.prepare(protocol, synthetic=False)
    return store


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    return prepared_store(tmp_path / "results", make_protocol())


@pytest.mark.parametrize("validation_rows", [0, 2])
def test_cells_are_read_unchanged(store: CellStore, validation_rows: int) -> None:
    cell, written = make_cell(), make_probabilities(validation_rows)
    assert not store.has(cell.key)
    store.write(cell, written)
    record, read = read_cell(store.path(cell.key))
    assert store.has(cell.key)
    assert record.model_dump_json() == cell.model_dump_json()
    assert set(read) == set(PARTS)
    for part in PARTS:
        assert read[part].dtype == np.float32
        assert read[part].shape == written[part].shape
        assert read[part].tobytes() == written[part].tobytes()


def test_memory_layout_is_irrelevant(store: CellStore) -> None:
    cell, plain = make_cell(), make_probabilities()
    store.write(cell, {part: np.asfortranarray(values) for part, values in plain.items()})
    _, read = read_cell(store.path(cell.key))
    assert all(np.array_equal(read[part], plain[part]) for part in PARTS)


def test_the_same_cell_gives_the_same_bytes(store: CellStore) -> None:
    store.write(make_cell(), make_probabilities())
    first = store.path(make_cell().key).read_bytes()
    store.write(make_cell(), make_probabilities())
    assert store.path(make_cell().key).read_bytes() == first


def test_fingerprint_excludes_the_audit(store: CellStore) -> None:
    stored = store.protocol()
    assert stored.fingerprint == make_protocol().fingerprint
    assert (stored.audit.test_rows, stored.audit.never_positive_labels) == (4, ("IsNever",))
    assert PROSE not in store.protocol_path.read_text(encoding="utf-8")


def test_records_are_sorted_by_file_name(store: CellStore) -> None:
    for seed in (2, 0, 1):
        store.write(make_cell(seed), make_probabilities())
    assert [cell.key.seed for cell in store.records()] == [0, 1, 2]


def test_writing_a_cell_leaves_no_temporary_files(store: CellStore) -> None:
    store.write(make_cell(), make_probabilities())
    files = {str(f.relative_to(store.folder)) for f in store.folder.rglob("*") if f.is_file()}
    cell = "cells/bert-0123456789ab-fold0-seed0.safetensors"
    assert files == {"protocol.json", "rows.safetensors", cell}


@pytest.mark.parametrize("fraction", range(50))
def test_any_changed_byte_is_detected(store: CellStore, fraction: int) -> None:
    store.write(make_cell(), make_probabilities())
    path = store.path(make_cell().key)
    data = bytearray(path.read_bytes())
    data[fraction * (len(data) - 1) // 49] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=re.escape(path.name)) as caught:
        read_cell(path)
    assert caught.value.exit_code == 6
    with pytest.raises(DamagedError):
        store.records()


@pytest.mark.parametrize("end", [0, 1, 7, 8, 9, 500, -100, -8, -1])
def test_a_truncated_file_is_detected(store: CellStore, end: int) -> None:
    store.write(make_cell(), make_probabilities())
    path = store.path(make_cell().key)
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DamagedError, match="damaged; start the same toxbench run"):
        read_cell(path)


def test_appended_bytes_are_detected(store: CellStore) -> None:
    store.write(make_cell(), make_probabilities())
    path = store.path(make_cell().key)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DamagedError):
        read_cell(path)


def test_an_edited_record_is_detected(store: CellStore) -> None:
    store.write(make_cell(), make_probabilities())
    path = store.path(make_cell().key)
    data = path.read_bytes()
    assert b"22700000" in data
    path.write_bytes(data.replace(b"22700000", b"22700001"))
    with pytest.raises(DamagedError):
        read_cell(path)


def test_a_missing_cell_is_a_storage_error(store: CellStore) -> None:
    with pytest.raises(StorageError):
        read_cell(store.path(make_cell().key))


HOLDER = """
import sys
from pathlib import Path
from toxbench.store.cells import CellStore
with CellStore(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_lasts_until_the_process_ends(store: CellStore) -> None:
    store.write(make_cell(), make_probabilities())
    command = [sys.executable, "-c", HOLDER, str(store.folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(TryAgainError, match="another run") as caught, store.lock():
                pass
            assert caught.value.exit_code == 75
            assert [cell.key.candidate for cell in store.records()] == ["bert"]
        finally:
            holder.kill()
    with store.lock():
        assert store.protocol().rows == 20


def test_a_process_cannot_lock_twice(store: CellStore) -> None:
    with store.lock(), pytest.raises(TryAgainError), CellStore(store.folder).lock():
        pass
    with CellStore(store.folder).lock():
        assert store.protocol_path.is_file()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("comments.csv", "comments"),
        ("my comments.v2.csv", "my-comments-v2"),
        ("../x", "table"),
        ("../../etc/passwd.csv", "etc-passwd"),
        ("/root", "root"),
        ("..", "table"),
        ("", "table"),
        (".csv", "csv"),
        ("a" * 300 + ".csv", "a" * 40),
        ("комментарии.csv", "table"),
        ("naïve\x00\n.csv", "na-ve"),
        ("synthetic sample", "synthetic-sample"),
    ],
)
def test_folder_names_are_safe(tmp_path: Path, name: str, folder: str) -> None:
    protocol = make_protocol(name)
    store = prepared_store(tmp_path, protocol)
    assert store.folder == tmp_path / f"{folder}-{protocol.fingerprint[:12]}"
    assert store.protocol().name == name


def test_a_renamed_table_uses_the_same_folder(tmp_path: Path) -> None:
    first = prepared_store(tmp_path, make_protocol("old.csv"))
    renamed = prepared_store(tmp_path, make_protocol("new.csv"))
    larger = prepared_store(tmp_path, make_protocol("old.csv", rows=30))
    assert renamed.folder == first.folder
    assert larger.folder != first.folder
    assert renamed.protocol().name == "old.csv"


def test_the_stored_protocol_contains_no_comments(store: CellStore) -> None:
    protocol, stored = make_protocol(), store.protocol()
    text = store.protocol_path.read_text(encoding="utf-8")
    assert PROSE not in text
    assert "id7" not in text
    assert json.loads(text)["fingerprint"] == protocol.fingerprint
    fold = protocol.folds[0]
    assert stored.folds[0].test == tuple(fold.test.tolist())
    assert stored.folds[0].train == tuple(fold.train.tolist())
    assert (stored.rows, stored.labels) == (20, ("IsRude", "IsNever"))
    assert stored.supports == {"IsRude": 10, "IsNever": 0}
    even = sum(row % 2 == 0 for row in fold.test.tolist())
    assert stored.test_supports == ({"IsRude": even, "IsNever": 0},)
    assert not stored.synthetic


def test_a_folder_without_a_protocol_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StorageError, match="holds no results"):
            CellStore(folder).protocol()
        with pytest.raises(StorageError, match="no results yet"):
            find_store(folder)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"name": 1}', "[]"])
def test_a_damaged_protocol_is_refused(store: CellStore, content: str) -> None:
    store.protocol_path.write_text(content, encoding="utf-8")
    with pytest.raises(StorageError, match="damaged"):
        store.protocol()


def test_a_file_as_results_folder_is_refused(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write") as caught:
        prepared_store(results, make_protocol())
    assert caught.value.exit_code == 6
    with pytest.raises(StorageError), CellStore(results).lock():
        pass
    assert results.read_text(encoding="utf-8") == "mine"


@pytest.mark.faults(68)
def test_a_renamed_folder_is_found(tmp_path: Path) -> None:
    protocol = make_protocol()
    prepared_store(tmp_path, protocol).folder.rename(tmp_path / "mine")
    store = prepared_store(tmp_path, protocol)
    assert store.folder == tmp_path / "mine"


@pytest.mark.faults(68)
def test_a_folder_named_after_another_protocol_is_refused(tmp_path: Path) -> None:
    other, protocol = make_protocol(rows=30), make_protocol()
    wrong = tmp_path / f"x-{protocol.fingerprint[:12]}"
    prepared_store(tmp_path, other).folder.rename(wrong)
    before = (wrong / "protocol.json").read_bytes()
    with pytest.raises(StorageError, match=f"but holds results of {other.fingerprint[:12]}"):
        prepared_store(tmp_path, protocol)
    assert (wrong / "protocol.json").read_bytes() == before


@pytest.mark.faults(68)
def test_a_cell_under_another_name_is_damage(store: CellStore) -> None:
    store.write(make_cell(), make_probabilities())
    store.path(make_cell().key).rename(store.path(make_cell(1).key))
    with pytest.raises(DamagedError, match="seed1"):
        store.records()


@pytest.mark.parametrize("changes", [{"rows": 3}, {"supports": {}}, {"test_supports": []}])
def test_a_protocol_that_contradicts_itself_is_damage(
    store: CellStore, changes: dict[str, object]
) -> None:
    content = json.loads(store.protocol_path.read_text(encoding="utf-8")) | changes
    store.protocol_path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DamagedError):
        store.protocol()
