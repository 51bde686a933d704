"""A real notebook: live progress, the leaderboard, figures and the report in its outputs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from support import TIMEOUT, write_table

pytestmark = pytest.mark.slow

RUN = """
import logging, toxbench
logging.basicConfig(level="INFO", filename="run.log")
bench = toxbench.run("comments.csv", backbones=["bert"], adaptation=["full"], seeds=2,
                     weights="bert={checkpoint}", train={{"epochs": 2, "max_length": 32}},
                     workers={workers})
"""


def execute(folder: Path, *sources: str) -> list[list[Any]]:
    """Run a notebook's cells in a new kernel; return the outputs of each."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    kernel = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=kernel).execute()
    nbformat.write(notebook, folder / "notebook.ipynb")
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.parametrize("workers", [1, 2])
def test_notebook_shows_progress_and_results(
    checkpoint: Path, tmp_path: Path, workers: int
) -> None:
    write_table(tmp_path / "comments.csv")
    run = RUN.format(checkpoint=checkpoint, workers=workers)
    more = RUN.replace("seeds=2", "seeds=3, progress=False")
    silent = more.format(checkpoint=checkpoint, workers=workers)
    shown = execute(
        tmp_path, run, "bench", "bench.plot()", "bench.report()", "print(bench)", silent
    )
    (progress,), (board,), (plots,), (report,), (text,), nothing = shown
    lines = progress.data["text/html"]
    assert "toxbench: warning: no positive row" in lines
    assert "[4/4] " in lines
    assert "bert seed 1: micro-F1" in lines  # in any order, with two workers
    assert "━" not in lines  # the bars are gone
    assert board.data["text/html"].startswith('<div class="toxbench">')
    assert plots.data["text/html"].count("<img") == 4
    assert report.data["text/html"].startswith("<iframe")
    assert text.text.startswith("Leaderboard of comments.csv")
    assert "INFO:toxbench:" in (tmp_path / "run.log").read_text(encoding="utf-8")
    assert nothing == []
