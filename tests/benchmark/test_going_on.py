"""A run that is ended in the middle of a cell goes on from there, to the same bytes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from support import write_table

from toxbench.records import CellRecord
from toxbench.store.cells import CellStore

Run = Callable[..., pd.DataFrame]
TRAIN = {"epochs": 60, "batch_size": 8, "eval_steps": 45, "max_length": 32}
LONG = [f"--{name.replace('_', '-')}={value}" for name, value in TRAIN.items()]


def words(table: Path, checkpoint: Path, *more: str) -> list[str]:
    return ["run", "--data", str(table), "--backbones", "bert", "--weights", f"bert={checkpoint}",
            "--baselines", "none", *LONG, *more]  # fmt: skip


def start(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    def hear_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-m", "toxbench", *command], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


def only_cell(results: Path) -> tuple[CellRecord, Mapping[str, npt.NDArray[np.float32]]]:
    (folder,) = results.iterdir()
    (cell,) = CellStore(folder).cells()
    return cell  # type: ignore[return-value]


def states(results: Path) -> list[Path]:
    return sorted(results.glob("*/.checkpoints/*"))


def without_times(record: CellRecord) -> dict[str, Any]:
    found = record.model_dump(exclude={"cost", "environment", "checksum"})
    return found | {"epochs": [e.model_dump(exclude={"seconds"}) for e in record.epochs]}


def assert_same(one: Path, other: Path) -> None:
    (record, probabilities), (record_2, probabilities_2) = only_cell(one), only_cell(other)
    assert without_times(record) == without_times(record_2)
    for part, values in probabilities.items():
        assert values.tobytes() == probabilities_2[part].tobytes(), part


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table, and the results of the training when nothing interrupts it."""
    folder = tmp_path_factory.mktemp("whole")
    table = write_table(folder / "comments.csv")
    command = words(table, checkpoint, "--workers", "1")
    done = subprocess.run([sys.executable, "-m", "toxbench", *command], cwd=folder, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert states(folder / "results") == []
    return table, folder / "results"


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        pytest.param(signal.SIGTERM, [], marks=pytest.mark.faults(21)),
        pytest.param(signal.SIGTERM, ["--workers", "1"], marks=pytest.mark.faults(21)),
    ],
    ids=["here", "worker"],
)
def test_a_signal_keeps_the_state_and_the_same_command_goes_on(
    whole: tuple[Path, Path], checkpoint: Path, tmp_path: Path, workers: list[str], number: int
) -> None:
    table, undisturbed = whole
    command = words(table, checkpoint, *workers)
    process = start(tmp_path, command)
    told = read_until(process, "step 90:")
    os.killpg(process.pid, number)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 128 + number
    assert len(states(tmp_path / "results")) == 1
    process = start(tmp_path, command)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert states(tmp_path / "results") == []
    told, _, _ = told.partition("; about")  # the time left is another one
    assert told in stderr  # with its comments a second: not trained again
    assert_same(undisturbed, tmp_path / "results")


@pytest.mark.faults(33)
def test_a_killed_run_goes_on_from_the_last_state(
    whole: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    table, undisturbed = whole
    command = words(table, checkpoint, "--workers", "1", "--checkpoint-every", "0.1s")
    process = start(tmp_path, command)
    told = read_until(process, "step 45:")
    read_until(process, "step 135:")  # states were kept since
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert states(tmp_path / "results")
    process = start(tmp_path, command)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert states(tmp_path / "results") == []
    told, _, _ = told.partition("; about")  # the time left is another one
    assert told in stderr  # with its comments a second: not trained again
    assert_same(undisturbed, tmp_path / "results")


def test_patience_and_looks_need_validation_rows(run: Run) -> None:
    from toxbench.errors import SettingsError

    for name in ("eval_steps", "patience"):
        with pytest.raises(SettingsError, match=f"{name} needs validation rows"):
            run(train={name: 2}, split={"validation_size": 0.0})
