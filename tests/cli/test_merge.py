"""``toxbench merge``: the folders of several machines end as the folder of one."""

import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from forks import Forks
from support import write_table

from toxbench.records import Calibration, CellKey, WeightsRecord
from toxbench.store.cells import CellStore, find_store
from toxbench.store.manifest import read_manifest
from toxbench.store.models import ModelRecord, SavePolicy

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
PARTLY_EQUAL = {"manifest.json", ".lock", ".manifest.lock"}


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file whose bytes a merge must give."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name not in PARTLY_EQUAL]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def copy_part(store: CellStore, folder: Path, missing: str) -> CellStore:
    """Copy a store as another machine has it, without the cells of this pattern."""
    part = CellStore(folder / store.folder.name)
    shutil.copytree(store.folder, part.folder)
    for cell in part.folder.rglob(f"cells/{missing}"):
        cell.unlink()
    return part


def start(forks: Forks, table: Path, command: str, results: str, *words: str) -> CellStore:
    options = ("--data", table.name, "--quiet", "--results", results, *words)
    result = forks.run(command, *options, cwd=table.parent)
    assert result.code == 0, result.err
    return find_store(table.parent / results)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> CellStore:
    """The results of one machine: two baselines, two folds, quoted scores, a subset."""
    table = write_table(tmp_path_factory.mktemp("single") / "comments.csv")
    quoted = table.with_name("paper.toml")
    quoted.write_text('[[quoted]]\nname = "SVM"\nsource = "A paper"\nmicro_f1 = 0.5\n')
    words = ("--backbones", "none", "--folds", "2")
    start(forks, table, "curve", "results", "--sizes", "0.5,1", *words)
    return start(forks, table, "run", "results", "--quoted", quoted.name, *words)


@dataclass
class Machines:
    """Two folders with parts of the same results."""

    first: CellStore
    second: CellStore
    cli: Cli
    into: Path

    def merge(self, *folders: Path) -> tuple[CellStore, list[str]]:
        """Merge both, or these folders; return the merged store and the lines on stderr."""
        folders = folders or (self.first.folder, self.second.folder)
        result = self.cli("merge", *map(str, folders), "--into", str(self.into))
        assert result.returncode == 0, result.stderr
        store = find_store(self.into)
        assert result.stdout == f"{len(store.paths())} cells in {store.folder}\n"
        return store, result.stderr.splitlines()


@pytest.fixture
def machines(single: CellStore, cli: Cli, tmp_path: Path) -> Machines:
    """Machines with a candidate each; both have the first cell of the second machine."""
    first = copy_part(single, tmp_path / "a", "always-*-fold1-*")
    return Machines(first, copy_part(single, tmp_path / "b", "tfidf-*"), cli, tmp_path / "c")


def change_cell(store: CellStore, pattern: str) -> Path:
    """Change a probability of the test rows in the cell that matches; return the file."""
    (path,) = (store.folder / "cells").glob(pattern)
    record, probabilities = store.reader.read(path)
    test = probabilities["test"].copy()
    test[0, 0] = 0.75
    store.write(record, {**probabilities, "test": test})
    return path


@pytest.mark.parametrize("is_reversed", [False, True])
def test_union_has_bytes_of_one_run(
    machines: Machines, single: CellStore, is_reversed: bool
) -> None:
    folders = [machines.first.folder.parent, machines.second.folder.parent]
    merged, messages = machines.merge(*folders[:: -1 if is_reversed else 1])
    assert messages == []
    assert merged.folder.name == single.folder.name
    assert contents(merged.folder) == contents(single.folder)
    assert read_manifest(merged.folder) == read_manifest(single.folder)


def test_results_are_added_to_a_source(machines: Machines, single: CellStore) -> None:
    machines.into = machines.first.folder.parent
    merged, _ = machines.merge()
    assert merged.folder == machines.first.folder
    assert contents(merged.folder) == contents(single.folder)


def test_repeated_merge_changes_nothing(machines: Machines) -> None:
    change_cell(machines.second, "always-*-fold0-*")
    merged, messages = machines.merge()
    before = contents(machines.into)
    (merged.folder / "rows.safetensors").unlink()  # as after a kill, which wrote the rest
    merged.paths()[0].unlink()
    assert machines.merge()[1] == messages
    assert contents(machines.into) == before


def test_other_probabilities_are_kept_aside(machines: Machines) -> None:
    changed = change_cell(machines.second, "always-*-fold0-*")
    (original,) = (machines.first.folder / "cells").glob("always-*-fold0-*")
    merged, (message,) = machines.merge()
    assert merged.path(merged.reader.read(original)[0].key).read_bytes() == original.read_bytes()
    (aside,) = (merged.folder / "conflicts").iterdir()
    assert aside.read_bytes() == changed.read_bytes()
    assert f"{changed} has other probabilities than" in message
    assert str(aside) in message
    folders = [str(part.folder) for part in (machines.first, machines.second)]
    several, one = (
        machines.cli("leaderboard", *words, "--json") for words in (folders, [str(merged.folder)])
    )
    assert several.stdout == one.stdout


def test_first_of_equal_cells_remains(machines: Machines) -> None:
    (path,) = (machines.second.folder / "cells").glob("always-*-fold0-*")
    record, probabilities = machines.second.reader.read(path)
    slower = record.cost.model_copy(update={"train_seconds": 1000.0})
    machines.second.write(record.model_copy(update={"cost": slower}), probabilities)
    merged, messages = machines.merge(machines.second.folder, machines.first.folder)
    assert messages == []
    assert merged.path(record.key).read_bytes() == path.read_bytes()


def test_failures_of_missing_cells_remain(machines: Machines) -> None:
    (cell, failed) = (record.key for record in machines.second.records())
    machines.second.path(failed).unlink()
    machines.second.failures.write(failed, "NodeLost", "the node is gone")
    trained = machines.first.records()[-1].key
    machines.second.failures.write(trained, "NodeLost", "the node is gone")
    machines.first.failures.write(cell, "NodeLost", "the node is gone")
    machines.first.path(cell).unlink()
    merged, _ = machines.merge()
    assert [record.key for record in merged.failures.records()] == [failed]


def test_manifests_are_joined(machines: Machines) -> None:
    path = machines.second.folder / "manifest.json"
    other = path.read_text(encoding="utf-8").replace("--folds 2", "--folds 2 --quiet")
    path.write_text(other, encoding="utf-8")
    merged, _ = machines.merge()
    commands = [read_manifest(part.folder).commands for part in (machines.first, machines.second)]
    assert commands[0] != commands[1]
    assert read_manifest(merged.folder).commands == (*commands[0], *commands[1])
    assert len(read_manifest(merged.folder).runs) == 1


def files_below(folders: Iterable[Path]) -> dict[Path, bytes]:
    return {p: p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file()}


def test_other_protocols_are_refused(forks: Forks, cli: Cli, machines: Machines) -> None:
    table = write_table(machines.into.with_name("longer.csv"), rows=70)
    other = start(forks, table, "run", "d", "--backbones", "none", "--folds", "2")
    folders = [machines.first.folder, other.folder]
    before = files_below(folders)
    result = cli("merge", *map(str, folders), "--into", str(machines.into))
    assert result.returncode == 6
    (error,) = result.stderr.splitlines()
    assert "the table (comments.csv with 60 rows and longer.csv with 70 rows)" in error
    assert not machines.into.exists()
    assert files_below(folders) == before


def test_damaged_cells_are_refused(machines: Machines) -> None:
    path = machines.second.paths()[0]
    path.write_bytes(path.read_bytes()[:-1])
    folders = (str(machines.first.folder), str(machines.second.folder))
    result = machines.cli("merge", *folders, "--into", str(machines.into))
    assert result.returncode == 6
    assert f"{path} is damaged" in result.stderr
    assert not machines.into.exists()


def save_model(store: CellStore, key: CellKey, score: float, saved: SavePolicy) -> None:
    """Store a model as a run does; its weights are a text."""
    record = ModelRecord(
        key=key, saved=saved, fingerprint="f", synthetic=True, distribution="toxbench 1",
        weights=WeightsRecord(source="local", label="x", identity="y"), tuned=False,
        labels=("IsRude",), thresholds={"0.5": (0.5,)}, calibration=Calibration(), max_length=16,
        long_text="head",
        precision="fp32", score=score,
    )  # fmt: skip
    temporary = store.models.temporary_path(key)
    temporary.mkdir(parents=True)
    (temporary / "model.safetensors").write_text(f"weights of {key.stem}")
    store.models.publish(record, lambda: f"a card of {key.stem}")
    store.models.remove_superseded(key)


@pytest.mark.parametrize(("saved", "count"), [("best", 1), ("all", 2)])
@pytest.mark.parametrize("scores", [(0.3, 0.5), (0.5, 0.3)])
def test_models_are_those_of_one_run(
    machines: Machines, single: CellStore, saved: SavePolicy, count: int, scores: tuple[float, ...]
) -> None:
    whole = copy_part(single, machines.into.with_name("whole"), "none")
    keys = [record.key for record in machines.second.records()]
    parts = (machines.first, machines.second)
    for store, key, score in zip(parts, keys, scores, strict=True):
        save_model(store, key, score, saved)
        save_model(whole, key, score, saved)
    merged, _ = machines.merge()
    assert len(merged.models.records()) == count
    assert contents(merged.folder) == contents(whole.folder)
