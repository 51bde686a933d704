"""An interrupted training resumes, with the same bytes as an uninterrupted one."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from forks import Forks, StreamingCommand
from left_behind import Results, assert_same
from support import TIMEOUT, write_table

from toxbench.records import CellRecord
from toxbench.store.cells import CellStore

pytestmark = pytest.mark.slow

Run = Callable[..., pd.DataFrame]
TRAIN = {"epochs": 60, "batch_size": 8, "eval_steps": 45, "max_length": 32}
TRAIN_OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in TRAIN.items()]


def make_command(table: Path, checkpoint: Path, *options: str) -> list[str]:
    return ["run", "--verbose", "--data", str(table), "--backbones", "bert",
            "--weights", f"bert={checkpoint}", "--baselines", "none", *TRAIN_OPTIONS,
            *options]  # fmt: skip


def read_until(process: StreamingCommand, text: str) -> str:
    """Read stderr until a line contains a text; return the line."""
    return next(line for line in process.stderr if text in line)


def only_cell(results: Path) -> CellRecord:
    (folder,) = results.iterdir()
    (record,) = CellStore(folder).records()
    return record


def checkpoints(results: Path) -> list[Path]:
    return sorted(results.glob("*/.checkpoints/*"))


@pytest.fixture(scope="module")
def undisturbed(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, forks: Forks
) -> tuple[Path, Path]:
    """A table, and the results of an uninterrupted training on it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    table = write_table(folder / "comments.csv")
    result = forks.run(*make_command(table, checkpoint, "--workers", "1"), cwd=folder)
    assert result.code == 0, result.err
    assert checkpoints(folder / "results") == []
    return table, folder / "results"


def assert_resumes(
    forks: Forks, folder: Path, command: list[str], epoch_line: str, undisturbed: Path
) -> None:
    """Run a command again; check that it does not repeat an epoch and gives the same bytes."""
    result = forks.run(*command, cwd=folder)
    assert result.code == 0, result.err
    assert checkpoints(folder / "results") == []
    epoch, _, _ = epoch_line.partition("; about")  # without the time left
    assert epoch in result.err  # with the same comments per second: not trained again
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
    forks: Forks,
    undisturbed: tuple[Path, Path],
    checkpoint: Path,
    tmp_path: Path,
    options: list[str],
    number: int,
) -> None:
    table, results = undisturbed
    command = make_command(table, checkpoint, *options)
    process = forks.stream(*command, cwd=tmp_path)
    epoch_line = read_until(process, "step 90:")
    os.killpg(process.pid, number)
    start_time = time.monotonic()
    process.communicate(timeout=TIMEOUT)
    assert time.monotonic() - start_time < 10
    assert process.returncode == 128 + number
    assert len(checkpoints(tmp_path / "results")) == 1
    assert_resumes(forks, tmp_path, command, epoch_line, results)


@pytest.mark.faults(33)
def test_killed_run_resumes_from_last_checkpoint(
    forks: Forks, undisturbed: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    table, results = undisturbed
    options = ("--workers", "1", "--checkpoint-every", "0.1s")
    command = make_command(table, checkpoint, *options)
    process = forks.stream(*command, cwd=tmp_path)
    epoch_line = read_until(process, "step 45:")
    read_until(process, "step 135:")  # after several checkpoints
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=TIMEOUT)
    assert checkpoints(tmp_path / "results")
    assert_resumes(forks, tmp_path, command, epoch_line, results)


def test_evaluations_need_validation_rows(run: Run) -> None:
    from toxbench.errors import SettingsError

    for name in ("eval_steps", "patience"):
        with pytest.raises(SettingsError, match=f"{name} needs validation rows"):
            run(train={name: 2}, split={"validation_size": 0.0})
