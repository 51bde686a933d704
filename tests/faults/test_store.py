"""A results folder with damage, newer versions, concurrent runs, read-only folders and links."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import CommandResult, Forks
from support import read_json, write_table

import toxbench
from toxbench.errors import StorageError
from toxbench.records import CellKey
from toxbench.store.cells import CellStore
from toxbench.store.files import SUFFIX, decode, encode

pytestmark = pytest.mark.slow

Contents = dict[str, bytes]
Run = Callable[..., CommandResult]
BASELINES = ("--backbones", "none")


@pytest.fixture
def run(forks: Forks, table: Path, tmp_path: Path) -> Run:
    """Run baselines on a table, with more options such as ``--dry-run``."""

    def call(*words: str, **keywords: object) -> CommandResult:
        options = ("--data", str(table), *BASELINES, "--results", str(tmp_path / "results"))
        return forks.run("run", *options, *words, **keywords)

    return call


@pytest.fixture(scope="session")
def _stored(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    data = ("--data", str(write_table(folder / "comments.csv")))
    result = forks.run("run", *data, *BASELINES, "--results", str(folder / "results"))
    assert result.code == 0, result.err
    return folder / "results"


@pytest.fixture
def store(_stored: Path, tmp_path: Path) -> CellStore:
    """A folder with the cells of two baselines."""
    shutil.copytree(_stored, tmp_path / "results")
    (folder,) = (tmp_path / "results").iterdir()
    return CellStore(folder)


def contents(folder: Path) -> Contents:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stored_files(folder: Path) -> Contents:
    """Return all files except the lock's; a command that is refused must not change them."""
    return {name: data for name, data in contents(folder).items() if ".lock" not in name}


def scores(result: CommandResult) -> str:
    """Return the leaderboard of a run, without the seconds at the end of its rows."""
    return re.sub(r" +\d+\.\d$", "", result.out, flags=re.MULTILINE)


# Damage


def cut(path: Path) -> bytes:
    path.write_bytes(path.read_bytes()[:-1])
    return path.read_bytes()


def flipped(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    return bytes(data)


@pytest.mark.faults(35)
def test_damaged_cells_are_moved_and_recomputed(run: Run, forks: Forks, store: CellStore) -> None:
    before = run()
    first, second = store.paths()
    tensors = decode("cell", first.read_bytes())[1]
    damaged = {first: cut(first), second: flipped(second)}
    files = stored_files(store.folder)
    for words in (("leaderboard",), ("compare", "--results"), ("rescore",)):
        read = forks.run(*words, str(store.folder))
        assert read.code == 6, words
        assert read.error.endswith(
            f"{first.name} is damaged; start the same toxbench run again, which moves it aside and "
            "computes it again"
        )
    assert "0 stored already" in run("--dry-run").err
    assert stored_files(store.folder) == files
    result = run()
    assert result.code == 0, result.err
    for path, data in damaged.items():
        aside = path.with_name(f"{path.name}.corrupt")
        assert aside.read_bytes() == data
        warnings = [line for line in result.err.splitlines() if path.name in line]
        assert warnings == [
            f"toxbench: warning: {path} was damaged and is now {aside.name}; a run of the cell "
            "computes it again"
        ]
    assert scores(result) == scores(before)
    computed = decode("cell", first.read_bytes())[1]
    assert all(computed[part].tobytes() == tensors[part].tobytes() for part in tensors)
    second_time = cut(first)
    assert run().code == 0
    assert first.with_name(f"{first.name}.corrupt-2").read_bytes() == second_time
    assert first.with_name(f"{first.name}.corrupt").read_bytes() == damaged[first]
    assert "corrupt" not in run().err


@pytest.mark.faults(35)
@pytest.mark.parametrize("name", ["protocol.json", "rows.safetensors"])
@pytest.mark.parametrize("damage", [cut, flipped])
def test_damaged_table_files_are_rewritten(
    run: Run, forks: Forks, store: CellStore, name: str, damage: Callable[[Path], bytes]
) -> None:
    path = store.folder / name
    original, data = path.read_bytes(), damage(path)
    read = forks.run("leaderboard", str(store.folder))
    assert read.code == 6
    assert "moves it aside" in read.error
    result = run()
    assert result.code == 0, result.err
    assert "nothing to compute" in result.err
    assert f"{path} was damaged and is now {name}.corrupt; it is written again" in result.err
    assert path.with_name(f"{name}.corrupt").read_bytes() == data
    assert path.read_bytes() == original


@pytest.mark.faults(35)
def test_changed_row_numbers_are_damage(run: Run, store: CellStore) -> None:
    """The JSON is complete and valid; only the row numbers are wrong."""
    content = read_json(store.protocol_path)
    folds = content["folds"]
    assert isinstance(folds, list)
    folds[0]["test"][0], folds[0]["train"][0] = folds[0]["train"][0], folds[0]["test"][0]
    store.protocol_path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(toxbench.errors.StorageError, match="is damaged"):
        store.protocol()
    result = run()
    assert result.code == 0
    assert "protocol.json.corrupt" in result.err


# Versions


def newer_cell(store: CellStore) -> Path:
    path = store.paths()[0]
    text, tensors = decode("cell", path.read_bytes())
    content = json.loads(text) | {"schema_version": 2, "new": [1]}
    path.write_bytes(encode("cell", json.dumps(content), tensors))
    return path


def newer_protocol(store: CellStore) -> Path:
    content = read_json(store.protocol_path) | {"schema_version": 9, "new": {}}
    store.protocol_path.write_text(json.dumps(content), encoding="utf-8")
    return store.protocol_path


def newer_rows(store: CellStore) -> Path:
    path = store.folder / "rows.safetensors"
    text, tensors = decode("rows", path.read_bytes())
    content = json.loads(text) | {"schema_version": 99}
    path.write_bytes(encode("rows", json.dumps(content), tensors))
    return path


def newer_failure(store: CellStore) -> Path:
    key = CellKey(candidate="bert", digest="0" * 12)
    store.failures.write(key, "diverged", "why")
    path = store.failures.path(key)
    content = read_json(path) | {"schema_version": 2, "how": "new"}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.faults(38)
@pytest.mark.parametrize("make", [newer_cell, newer_protocol, newer_rows, newer_failure])
def test_newer_files_are_refused_and_unchanged(
    run: Run, forks: Forks, store: CellStore, make: Callable[[CellStore], Path]
) -> None:
    path = make(store)
    before = stored_files(store.folder)
    for result in (run(), forks.run("leaderboard", str(store.folder))):
        assert result.code == 6
        assert f"{path} was written by a newer toxbench (schema " in result.error
        assert "upgrade: pip install --upgrade toxbench" in result.error
    assert stored_files(store.folder) == before


# Locks


@pytest.mark.faults(36)
def test_second_run_names_the_lock_holder(run: Run, forks: Forks, store: CellStore) -> None:
    with store.lock():
        before = stored_files(store.folder)
        result = run()
        assert result.code == 75
        assert f"another run (process {os.getpid()}, since 20" in result.error
        assert f" UTC) is writing to {store.folder}; wait for it" in result.error
        assert forks.run("leaderboard", str(store.folder)).code == 0
        assert stored_files(store.folder).items() >= before.items()
    assert run().code == 0


@pytest.mark.faults(36)
def test_killed_run_releases_the_lock(forks: Forks, table: Path, tmp_path: Path) -> None:
    words = ("run", "--data", str(table), *BASELINES, "--results", str(tmp_path / "results"))
    assert forks.run(*words, kill_at=("tfidf-logreg-", 1, "made")).code == -9
    (folder,) = (tmp_path / "results").iterdir()
    assert (folder / ".lock.holder").is_file()
    assert forks.run(*words).code == 0
    assert not list(folder.rglob("*.tmp"))
    assert not (folder / ".lock.holder").exists()


# Permission


@pytest.fixture
def closed(store: CellStore, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Return a function that makes a folder read-only until the end of the test."""
    if sys.platform != "linux" and os.getuid() == 0:
        pytest.skip("only Linux can bind root to permission bits")
    changed: list[Path] = []

    def close(name: str) -> None:
        changed.append(store.folder / name)
        changed[-1].chmod(0o555)

    yield close
    for path in changed:
        path.chmod(0o755)


@pytest.mark.faults(37)
@pytest.mark.parametrize("name", [".", "cells", "failures"])
@pytest.mark.parametrize("stored", [True, False])
def test_read_only_folder_is_refused_before_computing(
    run: Run, store: CellStore, closed: Callable[[str], None], name: str, stored: bool
) -> None:
    (store.folder / "failures").mkdir()
    if not stored:
        for path in store.paths():
            path.unlink()
    closed(name)
    before = stored_files(store.folder)
    result = run(obey_permissions=True)
    assert result.code == 6
    assert f"cannot write {(store.folder / name).resolve()}" in result.error
    assert "[1/2]" not in result.err
    assert stored_files(store.folder) == before


@pytest.mark.faults(37)
def test_read_only_results_are_refused_before_computing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir(mode=0o555)
    result = run(obey_permissions=True)
    assert result.code == 6
    assert f"cannot write {tmp_path / 'results'}" in result.error
    assert "[1/2]" not in result.err


# Links


@pytest.mark.faults(39)
@pytest.mark.parametrize("name", ["", "cells", "failures", "tuning", "tuning/x/trials", ".lock"])
def test_links_are_not_followed(run: Run, store: CellStore, tmp_path: Path, name: str) -> None:
    link, elsewhere = store.folder / name, tmp_path / "elsewhere"
    if link.is_dir():
        shutil.move(link, elsewhere)
    elif name == ".lock":
        link.unlink()
        elsewhere.write_bytes(b"mine")
    else:
        elsewhere.mkdir()
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    before = contents(elsewhere) if elsewhere.is_dir() else elsewhere.read_bytes()
    result = run()
    assert result.code == 6
    assert f"{link} is a symbolic link" in result.error
    assert before == (contents(elsewhere) if elsewhere.is_dir() else elsewhere.read_bytes())


SPECIAL_FILES: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a symbolic link": lambda path: path.symlink_to("/dev/zero"),
    "a sparse file": lambda path: (path.touch(), os.truncate(path, 2**34))[0],
}


@pytest.mark.faults(52)
@pytest.mark.parametrize("kind", SPECIAL_FILES)
@pytest.mark.parametrize("name", ["cells/x.safetensors", "tuning/x/tuned.toml"])
def test_special_files_are_not_read(
    run: Run, store: CellStore, tmp_path: Path, kind: str, name: str
) -> None:
    path = store.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    SPECIAL_FILES[kind](path)
    for read in (toxbench.leaderboard, toxbench.compare):
        with pytest.raises(StorageError, match=f"{path} is {kind}"):
            read(tmp_path / "results")
    result = run("--dry-run")
    assert result.code == 6
    assert f"{path} is {kind}" in result.error


@pytest.mark.faults(39)
def test_results_folder_may_be_a_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "elsewhere")
    assert run().code == 0
    assert list(tmp_path.glob(f"elsewhere/*/cells/*{SUFFIX}"))
