"""Readers of stored files raise only StorageError on the bytes of a fuzzer, and commands end with
exit code 0 or 6 on every edit of every field.

``pytest tests/bench/test_fuzz_records.py -m bench -s``, for ``TOXBENCH_FUZZ_SECONDS`` (180).
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzz_records import edits, make_results, stored_kinds

pytestmark = pytest.mark.bench


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: pip install it")
def test_readers_raise_only_storage_errors(tmp_path: Path) -> None:
    seconds = os.environ.get("TOXBENCH_FUZZ_SECONDS", "180")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_corpus(corpus)
    prefix = tmp_path / "failing-"
    result = subprocess.run(
        [sys.executable, __file__, str(corpus), f"-max_total_time={seconds}", "-max_len=20000",
         "-rss_limit_mb=3000", "-malloc_limit_mb=500", f"-artifact_prefix={prefix}"],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    report = [line for line in result.stderr.splitlines() if "Done" in line or "cov:" in line]
    print("\n" + "\n".join(report[-2:]))
    assert result.returncode == 0, result.stderr[-5000:]
    assert list(tmp_path.glob("failing-*")) == []


@pytest.mark.parametrize("seed", range(3))
def test_commands_survive_edits_of_every_field(
    tmp_path: Path, checkpoint: Path, command: Callable[..., tuple[int, str]], seed: int
) -> None:
    store = make_results(tmp_path / "run", checkpoint)
    folder, failures = str(store.folder), []
    commands = (
        ("leaderboard", folder, "--full"),
        ("show", "bert", folder),
        ("predict", "you fool", "--results", folder),
        ("report", folder),
    )
    for name, kind in stored_kinds(store).items():
        for text, content in edits(kind.decode(kind.path.read_bytes()), random.Random(seed)):
            if kind.accepts(content):
                with kind.edited(content):
                    results = [(words[0], *command(*words)) for words in commands]
                failures += [(name, text, *r) for r in results if r[1] not in {0, 6}]
    assert failures == []


def write_corpus(folder: Path) -> None:
    """Write a valid file of each kind, preceded by the number of its reader."""
    from measured import Table

    from toxbench.records import CellKey, FailureRecord
    from toxbench.store.cells import CellStore
    from toxbench.store.files import write_rows

    table, store = Table(12), CellStore(folder.with_name("store"))
    record, tensors = table.cell(per_label={})
    store.write(record, tensors)
    write_rows(store.folder, table.comments)
    failure = FailureRecord(
        key=CellKey(candidate="a", digest="b"), kind="diverged", reason="x", failed_at=""
    )
    contents = [
        store.paths()[0].read_bytes(),
        record.model_dump_json().encode("utf-8"),
        (store.folder / "rows.safetensors").read_bytes(),
        table.protocol.model_dump_json().encode("utf-8"),
        failure.model_dump_json().encode("utf-8"),
        b'{"sha256": "", "record": "{}"}',
        b'{"schema_version": 1, "study": "s", "number": 0, "state": "failed"}',
        b'schema_version = 1\nbackbone = "bert"\n[train]\nepochs = 2\n',
    ]
    for number, content in enumerate(contents):
        (folder / f"kind-{number}").write_bytes(bytes([number]) + content)


def fuzz() -> None:
    """Run the fuzzer; it ends this process."""
    import atheris

    with atheris.instrument_imports(include=["toxbench", "json", "safetensors", "tomllib"]):
        from toxbench.errors import StorageError
        from toxbench.store.cells import read_protocol
        from toxbench.store.files import FILE, encode, read_cell, read_failure, read_rows
        from toxbench.store.trials import read_trial, read_tuned
    import numpy as np

    path = Path(tempfile.mkdtemp()) / FILE
    empty = {part: np.zeros((1, 1), np.float32) for part in ("train", "validation", "test")}

    def in_a_cell(data: bytes) -> bytes:
        return encode("cell", data.decode("utf-8", "replace"), empty)

    def in_a_trial(data: bytes) -> bytes:
        text = data.decode("utf-8", "replace")
        signed = {"sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(), "record": text}
        return json.dumps(signed).encode("ascii")

    def as_it_is(data: bytes) -> bytes:
        return data

    readers: list[tuple[Callable[[Path], object], Callable[[bytes], bytes]]] = [
        (read_cell, as_it_is),
        (read_cell, in_a_cell),
        (lambda path: read_rows(path.parent), as_it_is),
        (read_protocol, as_it_is),
        (read_failure, as_it_is),
        (read_trial, as_it_is),
        (read_trial, in_a_trial),
        (read_tuned, as_it_is),
    ]

    def read(data: bytes) -> None:
        if not data:
            return
        reader, wrap = readers[data[0] % len(readers)]
        path.write_bytes(wrap(data[1:]))
        with suppress(StorageError):
            reader(path)

    atheris.Setup(sys.argv, read)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz()
