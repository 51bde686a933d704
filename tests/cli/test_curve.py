"""``toxbench curve``: the cells of a run on parts of the train rows."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Forks
from support import write_table

from toxbench.store.cells import SUBSETS, CellStore, find_store, stores_below

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
RESULTS = ("--results", "results")
CANDIDATES = ("tfidf-logreg", "bert")  # the better one first
SIZES = ("--sizes", "0.25,0.5")
TRAINED = re.compile(r"^\[\d+/\d+\] (\S+ seed \d):", re.MULTILINE)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> tuple[str, ...]:
    """The options of a small run."""
    table = write_table(tmp_path_factory.mktemp("table") / "comments.csv", 120)
    return (
        "--data", str(table), "--backbones", "bert", "--weights", f"bert={checkpoint}",
        "--baselines", "tfidf-logreg", "--epochs", "1", "--max-length", "8",
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, forks: Forks, words: tuple[str, ...]) -> Path:
    """The results of a run, and after it of a curve, which writes curve.txt and curve.err."""
    folder = tmp_path_factory.mktemp("curve")
    result = forks.run("run", *words, *RESULTS, "--quiet", cwd=folder)
    assert result.code == 0, result.err
    (folder / "before.json").write_text(json.dumps(modified(full_store(folder))))
    result = forks.run("curve", *words, *RESULTS, *SIZES, cwd=folder)
    assert result.code == 0, result.err
    (folder / "curve.txt").write_text(result.out)
    (folder / "curve.err").write_text(result.err)
    return folder


def full_store(folder: Path) -> CellStore:
    return find_store(folder / "results")


def modified(store: CellStore) -> dict[str, int]:
    """Return the time of the last change of each cell."""
    return {path.name: path.stat().st_mtime_ns for path in store.paths()}


def test_all_train_rows_are_the_cells_of_the_run(folder: Path) -> None:
    store = full_store(folder)
    assert json.loads((folder / "before.json").read_text()) == modified(store)
    trained = TRAINED.findall((folder / "curve.err").read_text())
    assert sorted(trained) == ["bert seed 0"] * 2 + ["tfidf-logreg seed 0"] * 2
    digests = {record.key.digest for record in store.records()}
    subsets = stores_below(store.folder / SUBSETS)
    assert len(subsets) == 2
    for subset in subsets:
        assert {record.key.digest for record in subset.records()} == digests


def test_subsets_are_on_no_leaderboard(folder: Path, cli: Cli) -> None:
    board = json.loads(cli("leaderboard", str(folder / "results"), "--json").stdout)
    assert {row["candidate"]: row["cells"] for row in board["rows"]} == dict.fromkeys(CANDIDATES, 1)
    assert len(stores_below(folder / "results")) == 1
    first = (folder / "curve.txt").read_text()
    measured = re.findall(r"^(\S+) +(\d+) +(measured|forecast)  +", first, re.MULTILINE)
    sizes = [("22", "measured"), ("45", "measured"), ("91", "measured"), ("182", "forecast")]
    assert measured == [(name, *size) for name in CANDIDATES for size in sizes]


def test_only_missing_cells_are_trained(folder: Path, forks: Forks, words: tuple[str, ...]) -> None:
    (subset, *_) = stores_below(full_store(folder).folder / SUBSETS)
    (path,) = subset.folder.glob("cells/bert-*-seed0.safetensors")
    path.unlink()
    plan = forks.run("curve", *words, *RESULTS, *SIZES, "--dry-run", cwd=folder)
    assert re.findall(r"train rows: (\d) of 2 cells", plan.err).count("1") == 1
    assert not path.exists()
    result = forks.run("curve", *words, *RESULTS, *SIZES, cwd=folder)
    assert TRAINED.findall(result.err) == ["bert seed 0"]
    assert result.out == (folder / "curve.txt").read_text()


def test_report_has_the_curve(folder: Path, forks: Forks) -> None:
    result = forks.run("report", "results", cwd=folder)
    assert result.code == 0, result.err
    page = (full_store(folder).folder / "report.html").read_text(encoding="utf-8")
    assert '<section id="train-rows">' in page
    assert "forecast from fewer rows" in page


def test_command_is_recorded(folder: Path) -> None:
    (subset, *_) = stores_below(full_store(folder).folder / SUBSETS)
    manifest = json.loads((subset.folder / "manifest.json").read_text())
    assert manifest["commands"][0].startswith("toxbench curve --data comments.csv")


@pytest.mark.parametrize("sizes", ["0", "2", "-0.5", "many", "0.5,0.5", "nan", ",", "1"])
def test_impossible_sizes_are_refused(
    command: Callable[..., tuple[int, str]], table: Path, tmp_path: Path, sizes: str
) -> None:
    code, err = command("curve", str(table), "--backbones", "none", f"--sizes={sizes}")
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("toxbench: error: setting sizes")
    assert not (tmp_path / "results").exists()
