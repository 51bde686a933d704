"""Permission bits follow from the umask, an existing file, and the table of the comments."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import write_table

import toxbench

pytestmark = [pytest.mark.slow, pytest.mark.faults(47)]

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module", autouse=True)
def _group_may_read() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A folder with a table, results with a model, and the cache of the run."""
    folder = tmp_path_factory.mktemp("permissions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOXBENCH_CACHE", str(folder / "cache"))
        toxbench.run(
            write_table(folder / "table.csv"), backbones=["bert"], baselines=["always-negative"],
            weights=f"bert={checkpoint}", results=folder / "results",
            train={"epochs": 1, "max_length": 16},
        )  # fmt: skip
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes_below(folder: Path) -> set[int]:
    """Return the modes of all files and folders below a folder."""
    return {mode(path) for path in folder.rglob("*")}


def test_existing_file_keeps_its_mode(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    assert command("data", "sample", str(path)) == (0, "")
    assert mode(path) == 0o640
    path.chmod(0o600)
    assert command("data", "sample", str(path)) == (0, "")
    assert mode(path) == 0o600


def test_models_and_exports_follow_the_umask(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    target = tmp_path / "exported"
    assert command("export", str(target), "--results", str(folder / "results")) == (0, "")
    assert (mode(target), modes_below(target)) == (0o750, {0o640})
    (models,) = folder.glob("results/*/models")
    assert modes_below(models) == {0o750, 0o640}


def test_cached_tokens_are_private(folder: Path) -> None:
    assert {mode(path) for path in folder.glob("cache/**/*.tokens")} == {0o600}


@pytest.mark.parametrize(("table_mode", "expected"), [(0o600, 0o600), (0o644, 0o640)])
def test_comments_are_no_more_open_than_their_table(
    folder: Path, command: Command, tmp_path: Path, table_mode: int, expected: int
) -> None:
    table, results = folder / "table.csv", str(folder / "results")
    table.chmod(table_mode)
    for name, words in {"with.csv": ["--with-text"], "without.csv": []}.items():
        words += ["--input", str(table), "--output", name, "--results", results]
        assert command("predict", *words) == (0, "")
    assert (mode(tmp_path / "with.csv"), mode(tmp_path / "without.csv")) == (expected, 0o640)
    (page,) = (path.parent / "report.html" for path in folder.glob("results/*/protocol.json"))
    page.unlink(missing_ok=True)
    assert command("report", results) == (0, "")
    assert mode(page) == 0o640
    assert command("report", results, "--show-text", "--data", str(table)) == (0, "")
    assert mode(page) == expected
