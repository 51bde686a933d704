"""Modules that lie beside a table are not imported by any process of a run.

The interpreters are real: forks of a process that has imported its modules would import none.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from support import write_table
from traps import set_traps, sprung

from toxbench.util.processes import import_folders

pytestmark = [pytest.mark.slow, pytest.mark.faults(45)]


def test_no_process_imports_from_the_current_folder(tmp_path: Path, checkpoint: Path) -> None:
    write_table(tmp_path / "comments.csv")
    set_traps(tmp_path)
    # As the installed script: this process itself does not import from the current folder.
    start = [sys.executable, "-P", "-m", "toxbench", "run", "--data", "comments.csv"]
    result = subprocess.run(
        [*start, "--backbones", "bert", "--weights", f"bert={checkpoint}", "--epochs", "1",
         "--max-length", "16", "--adaptation", "full", "--baselines", "none",
         "--workers", "1", "--trackers", "tensorboard"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert sprung(tmp_path) == []
    assert result.returncode == 0, result.stderr
    assert "warning: tracker" not in result.stderr


@pytest.mark.parametrize("first", ["", "the path"])
def test_current_folder_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """A prompt puts "" first on the path, and ``python -m`` the path of the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path) if first else "", "/elsewhere"])
    assert import_folders() == ["/elsewhere"]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert import_folders() == sys.path
