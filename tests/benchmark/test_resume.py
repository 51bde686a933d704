"""An interrupted training resumes, with the same bytes as an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from left_behind import Results, assert_same
from support import write_table

from toxbench.records import CellRecord
from toxbench.store.cells import CellStore

pytestmark = pytest.mark.slow

Run = Callable[..., pd.DataFrame]
TRAIN = {"epochs": 60, "batch_size": 8, "eval_steps": 45, "max_length": 32}
TRAIN_OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in TRAIN.items()]


def make_command(table: Path, checkpoint: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "toxbench", "run", "--verbose",
    "--data", str(table), "--backbones", "bert",
            "--weights", f"bert={checkpoint}", "--baselines", "none", *TRAIN_OPTIONS,
            *options]  # fmt: skip


def start(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    def handle_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, preexec_fn=handle_ctrl_c,
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read stderr until a line contains a text; return the line."""
    assert process.stderr is not None
    return next(line for line in process.stderr if text in line)


def only_cell(results: Path) -> CellRecord:
    (folder,) = results.iterdir()
    (record,) = CellStore(folder).records()
    return record


def checkpoints(results: Path) -> list[Path]:
    return sorted(results.glob("*/.checkpoints/*"))


@pytest.fixture(scope="module")
def undisturbed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table, and the results of an uninterrupted training on it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    table = write_table(folder / "comments.csv")
    command = make_command(table, checkpoint, "--workers", "1")
    process = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert checkpoints(folder / "results") == []
    return table, folder / "results"


def assert_resumes(folder: Path, command: list[str], epoch_line: str, undisturbed: Path) -> None:
    """Run a command again; check that it does not repeat an epoch and gives the same bytes."""
    process = start(folder, command)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert checkpoints(folder / "results") == []
    epoch, _, _ = epoch_line.partition("; about")  # without the time left
    assert epoch in stderr  # with the same comments per second: not trained again
    assert_same(Results(folder / "results"), Results(undisturbed))


@pytest.mark.parametrize(
    ("number", "options"),
    [
        pytest.param(signal.SIGTERM, [], marks=pytest.mark.faults(21)),
        pytest.param(signal.SIGTERM, ["--workers", "1"], marks=pytest.mark.faults(21)),
    ],
    ids=["in-process", "worker"],
)
def test_terminated_run_resumes(
    undisturbed: tuple[Path, Path],
    checkpoint: Path,
    tmp_path: Path,
    options: list[str],
    number: int,
) -> None:
    table, results = undisturbed
    command = make_command(table, checkpoint, *options)
    process = start(tmp_path, command)
    epoch_line = read_until(process, "step 90:")
    os.killpg(process.pid, number)
    start_time = time.monotonic()
    process.communicate(timeout=60)
    assert time.monotonic() - start_time < 10
    assert process.returncode == 128 + number
    assert len(checkpoints(tmp_path / "results")) == 1
    assert_resumes(tmp_path, command, epoch_line, results)


@pytest.mark.faults(33)
def test_killed_run_resumes_from_last_checkpoint(
    undisturbed: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    table, results = undisturbed
    options = ("--workers", "1", "--checkpoint-every", "0.1s")
    command = make_command(table, checkpoint, *options)
    process = start(tmp_path, command)
    epoch_line = read_until(process, "step 45:")
    read_until(process, "step 135:")  # after several checkpoints
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert checkpoints(tmp_path / "results")
    assert_resumes(tmp_path, command, epoch_line, results)


def test_evaluations_need_validation_rows(run: Run) -> None:
    from toxbench.errors import SettingsError

    for name in ("eval_steps", "patience"):
        with pytest.raises(SettingsError, match=f"{name} needs validation rows"):
            run(train={name: 2}, split={"validation_size": 0.0})
