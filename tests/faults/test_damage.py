"""Cut and changed cells are recognized as damaged: every length, and hundreds of flipped bits."""

import os
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measured import Table

from toxbench.errors import NewerVersionError, StorageError
from toxbench.ranking.build import load_leaderboard
from toxbench.records import (
    CellRecord,
    FailureRecord,
    StoredRecord,
    TrialRecord,
    TunedSettings,
)
from toxbench.report.leaderboard import leaderboard_records
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.files import decode, encode, read_cell, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.faults(35)]


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    """A store with one small cell."""
    table, store = Table(12), CellStore(tmp_path)
    store.write(*table.cell(per_label={}))
    return store


def test_every_shorter_length_is_damage(store: CellStore) -> None:
    (path,) = store.paths()
    content = path.read_bytes()
    key = read_cell(path)[0].key
    assert store.has(key)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert not store.has(key), length
    path.write_bytes(content)
    assert store.has(key)


def test_flipped_bits_are_damage(store: CellStore) -> None:
    (path,) = store.paths()
    content, rng = path.read_bytes(), random.Random(35)
    key = read_cell(path)[0].key
    single = [[place] for place in rng.sample(range(8 * len(content)), 700)]
    several = [rng.sample(range(8 * len(content)), rng.randrange(2, 40)) for _ in range(200)]
    for places in single + several:
        data = bytearray(content)
        for place in places:
            data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        assert not store.has(key), places


def forged(header: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


TENSOR = (
    '{"t":{"dtype":"%s","shape":%s,"data_offsets":%s},'
    '"__metadata__":{"cell":"{\\"record\\":\\"{}\\",\\"sha256\\":\\"\\"}"}}'
)


def tensor(dtype: str, shape: str, offsets: str) -> bytes:
    """Make a file with four bytes of data and a header that does not fit them."""
    return forged((TENSOR % (dtype, shape, offsets)).encode("ascii"), b"1234")


FORGED = {
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of 2^64 - 1 bytes": b"\xff" * 8 + b"{}",
    "a missing header of 90 MB": struct.pack("<Q", 90 * 2**20) + b"{",
    "no metadata": forged(b"{}"),
    "a list": forged(b"[]"),
    "a number": forged(b"1"),
    "metadata is a list": forged(b'{"__metadata__":[]}'),
    "metadata of another kind": forged(b'{"__metadata__":{"rows":"{}"}}'),
    "a record that is a number": forged(b'{"__metadata__":{"cell":"{\\"record\\":1}"}}'),
    "a record that is a list": forged(b'{"__metadata__":{"cell":"[]"}}'),
    "deep": forged(b"[" * 100_000),
    "deep inside": forged(b'{"__metadata__":{"cell":"' + b"[" * 100_000 + b'"}}'),
    "a shape of terabytes": tensor("F32", "[1099511627776]", "[0, 4]"),
    "a negative shape": tensor("F32", "[-1]", "[0, 4]"),
    "a shape that overflows": tensor("F32", "[4294967296, 4294967296, 4]", "[0, 4]"),
    "offsets beyond the end": tensor("F32", "[1]", "[4, 8]"),
    "offsets that go back": tensor("F32", "[1]", "[4, 0]"),
    "a type that numpy lacks": tensor("BF16", "[2]", "[0, 4]"),
    "an 8 bit float": tensor("F8_E4M3", "[4]", "[0, 4]"),
    "a 4 bit float": tensor("F4", "[8]", "[0, 4]"),
    "an unknown type": tensor("F31", "[1]", "[0, 4]"),
    "an integer of 5,000 digits": forged(b'{"__metadata__":' + b"1" * 5000 + b"}"),
}


@pytest.mark.parametrize("data", FORGED.values(), ids=FORGED)
def test_forged_headers_are_damage_and_take_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"."):
            decode("cell", data)
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.astype(np.float64),
        lambda values: values[None],
        lambda values: values[:-1],
        lambda values: values[:, :-1],
    ],
)
def test_wrong_probability_types_and_shapes_are_refused(tmp_path: Path, change: object) -> None:
    """The checksum is right: the cell was written with these values."""
    table, store = Table(), CellStore(tmp_path)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    write_rows(tmp_path, table.comments)
    record, tensors = table.cell()
    changed = {part: change(values) for part, values in tensors.items()}  # type: ignore[operator]
    store.path(record.key).parent.mkdir()
    store.path(record.key).write_bytes(encode("cell", record.model_dump_json(), changed))
    with pytest.raises(StorageError, match=r"(is damaged|has other rows or labels)"):
        load_leaderboard(store)


STORED = [CellRecord, TrialRecord, TunedSettings, FailureRecord, ProtocolRecord]


@pytest.mark.faults(38)
@pytest.mark.parametrize("kind", STORED)
def test_every_record_kind_refuses_newer_versions(kind: type[StoredRecord]) -> None:
    with pytest.raises(NewerVersionError, match="somewhere was written by a newer toxbench"):
        kind.from_json('{"schema_version": 2, "unknown": 1}', "somewhere")
    with pytest.raises(NewerVersionError):
        kind.from_content({"schema_version": 2}, "somewhere")
    for text in ('{"schema_version": "2"}', '{"schema_version": null}', "[2]", "", "{"):
        with pytest.raises(ValueError, match=r"."):
            kind.from_json(text, "somewhere")


# The order in which cells are stored


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    order=st.permutations(range(6)), times=st.lists(st.integers(0, 10**9), min_size=6, max_size=6)
)
def test_leaderboard_ignores_the_order_of_storage(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], times: list[int]
) -> None:
    table = Table(20, folds=2)
    cells = [*table.cells("a", (0, 1)), *table.cells("b")]
    store = CellStore(tmp_path_factory.mktemp("store"))
    write_rows(store.folder, table.comments)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    for place in order:
        store.write(*cells[place])
        os.utime(store.path(cells[place][0].key), (times[place], times[place]))
    in_order = CellStore(tmp_path_factory.mktemp("in order"))
    write_rows(in_order.folder, table.comments)
    in_order.protocol_path.write_bytes(store.protocol_path.read_bytes())
    for cell in cells:
        in_order.write(*cell)
    assert leaderboard_records(load_leaderboard(store)) == leaderboard_records(
        load_leaderboard(in_order)
    )
