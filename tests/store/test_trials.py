"""Stored trials: they are read as written, or an error reports the damage."""

import hashlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from toxbench.errors import StorageError
from toxbench.records import TrialRecord
from toxbench.settings import TrainSettings
from toxbench.store.trials import TrialStore


def make_record(number: int = 0, **changes: Any) -> TrialRecord:
    """Return a finished trial; its uid is derived from its number."""
    fields: dict[str, Any] = {
        "study": "bert-0123456789ab",
        "uid": f"{number:032x}{number:08x}",
        "number": number,
        "plan_index": number,
        "state": "complete",
        "reason": "",
        "is_default": False,
        "params": {"learning_rate": 1e-05 / 3, "epochs": 4, "loss": "focal", "warmup": 0.0},
        "distributions": {"epochs": '{"name": "IntDistribution", "attributes": {"low": 2}}'},
        "system_attributes": {"grid_id": 3, "search_space": {"epochs": [2, 4]}},
        "settings": TrainSettings(learning_rate=1e-05 / 3, loss="focal", dropout=None),
        "seed": 10_001,
        "folds": (0, 1),
        "metric": "headline",
        "value": 2 / 3,
        "scores": (1 / 3, 1.0),
        "epoch_scores": {1: 0.1, 2: 1 / 3, 10: 0.5},
        "epochs": 8,
        "seconds": 12.5,
        "thresholds": {"0.5": (0.5, 0.5), "per-label": (1 / 3, 0.1)},
        "worker": "f" * 32,
        "finished_at": "2026-01-02T03:04:05+00:00",
    }
    return TrialRecord(**(fields | changes))


PRUNED: dict[str, Any] = {"state": "pruned", "reason": "too low", "value": None, "scores": ()}
FAILED: dict[str, Any] = {
    "state": "failed", "reason": 'Error: "tóo\n\tbad" \x00 \u2028 😀', "value": None, "scores": (),
    "epoch_scores": {}, "thresholds": {}, "params": {},
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> TrialStore:
    return TrialStore(tmp_path / "trials")


def only_file(store: TrialStore) -> Path:
    (path,) = store.folder.iterdir()
    return path


@pytest.mark.parametrize("changes", [{}, PRUNED, FAILED, {"is_default": True, "number": 12_345}])
def test_trials_are_read_unchanged(store: TrialStore, changes: dict[str, Any]) -> None:
    written = make_record(**changes)
    store.write(written)
    (read,) = store.records()
    assert read == written
    assert read.model_dump_json() == written.model_dump_json()
    assert {name: type(value) for name, value in read.params.items()} == {
        name: type(value) for name, value in written.params.items()
    }
    assert list(read.epoch_scores) == list(written.epoch_scores)


@pytest.mark.parametrize("value", [8, 8.0, "8", 1e-300, -0.0, 2**53, "", "nan", "1e-5", "True"])
def test_a_parameter_keeps_its_type(store: TrialStore, value: str | int | float) -> None:
    store.write(make_record(params={"x": value}))
    read = store.records()[0].params["x"]
    assert (read, type(read)) == (value, type(value))
    assert repr(read) == repr(value)


def test_the_same_trial_gives_the_same_bytes(store: TrialStore) -> None:
    store.write(make_record())
    first = only_file(store).read_bytes()
    store.write(make_record())
    assert only_file(store).read_bytes() == first


def test_a_missing_folder_has_no_trials(store: TrialStore) -> None:
    assert store.records() == []


def test_trials_are_sorted_by_number(store: TrialStore) -> None:
    numbers = [10, 2, 0, 100_000, 9_999, 10_000]
    for number in numbers:
        store.write(make_record(number))
    assert [record.number for record in store.records()] == sorted(numbers)


def test_trials_with_equal_numbers_are_both_read(store: TrialStore) -> None:
    """Two workers may store the same number; the order is that of their uids."""
    for uid in ("b" * 40, "a" * 40):
        store.write(make_record(3, uid=uid))
    assert [record.uid[0] for record in store.records()] == ["a", "b"]


def test_other_files_are_ignored(store: TrialStore) -> None:
    store.write(make_record())
    for name in (".sync.lock", ".trial-0001-abc.json-x7", "notes.json", "trial-0001.txt"):
        (store.folder / name).write_bytes(b"{")
    assert [record.number for record in store.records()] == [0]


WRITER = """
import sys
from pathlib import Path
from toxbench.records import TrialRecord
from toxbench.store.trials import TrialStore
record = TrialRecord.model_validate_json(sys.stdin.read())
for number in range(int(sys.argv[2]), 40, 2):
    uid = f"{sys.argv[2] * 32}{number:08x}"
    TrialStore(Path(sys.argv[1])).write(record.model_copy(update={"number": number, "uid": uid}))
"""


def test_trials_are_readable_during_writing(store: TrialStore) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.folder), str(first)],
            stdin=subprocess.PIPE, text=True,
        )
        for first in (0, 1)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(make_record().model_dump_json())
        writer.stdin.close()
    last_count = 0
    while any(writer.poll() is None for writer in writers):
        count = len(store.records())  # a partial file would raise an error
        assert count >= last_count
        last_count = count
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [record.number for record in store.records()] == list(range(40))


# --- damage


def assert_damaged(store: TrialStore, path: Path) -> None:
    with pytest.raises(StorageError, match=re.escape(str(path))) as caught:
        store.records()
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
@pytest.mark.parametrize("fraction", range(25))
def test_any_changed_byte_is_detected(store: TrialStore, fraction: int, mask: int) -> None:
    store.write(make_record(1))
    path = only_file(store)
    data = bytearray(path.read_bytes())
    data[fraction * (len(data) - 1) // 24] ^= mask
    path.write_bytes(data)
    store.write(make_record(0))  # an undamaged trial
    assert_damaged(store, path)


@pytest.mark.parametrize("end", [0, 1, 2, 50, 500, -50, -2, -1])
def test_a_truncated_file_is_detected(store: TrialStore, end: int) -> None:
    store.write(make_record())
    path = only_file(store)
    path.write_bytes(path.read_bytes()[:end])
    assert_damaged(store, path)


def with_checksum(text: str) -> bytes:
    checksum = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return json.dumps({"sha256": checksum, "record": text}).encode("ascii")


INVALID_FILES = {
    "list": b"[]",
    "null": b"null",
    "text": b'"trial"',
    "number": b"1",
    "no_keys": b"{}",
    "no_checksum": b'{"record": "{}"}',
    "record_is_null": b'{"sha256": "x", "record": null}',
    "record_is_an_object": b'{"sha256": "x", "record": {"number": 0}}',
    "binary": bytes(range(256)),
    "not_a_record": with_checksum("{}"),
    "not_json": with_checksum("trial"),
    "another_version": with_checksum(
        json.dumps(json.loads(make_record().model_dump_json()) | {"schema_version": 2})
    ),
    "unknown_field": with_checksum(
        json.dumps(json.loads(make_record().model_dump_json()) | {"x": 1})
    ),
}


@pytest.mark.parametrize("content", INVALID_FILES.values(), ids=INVALID_FILES)
def test_a_file_of_another_kind_is_refused(store: TrialStore, content: bytes) -> None:
    store.folder.mkdir()
    path = store.folder / "trial-0000-0123456789ab.json"
    path.write_bytes(content)
    assert_damaged(store, path)


def test_an_edited_record_is_refused(store: TrialStore) -> None:
    store.write(make_record())
    path = only_file(store)
    text = path.read_text(encoding="ascii")
    edited = text.replace(r"\"seed\":10001", r"\"seed\":10002")
    assert edited != text
    path.write_text(edited, encoding="ascii")
    assert_damaged(store, path)


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        TrialStore(tmp_path / "file" / "trials").write(make_record())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_score_is_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        make_record(value=value)
