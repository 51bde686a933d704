"""Trackers: their logs, read with the real readers, and their failures."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
from plugin_site import write_plugin
from support import TIMEOUT

import toxbench
from toxbench.records import CellRecord
from toxbench.store.cells import CellStore, find_store

pytestmark = pytest.mark.slow

BOTH = "tensorboard,mlflow"
# Runs in a subprocess, because importing these packages has side effects.
READ_LOGS = """
import json, os, sys, time
from pathlib import Path
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder, logs = Path(sys.argv[1]), {"tensorboard": {}, "mlflow": {}}
for run in (p for p in (folder / "tensorboard").iterdir() if p.is_dir()):
    events = EventAccumulator(str(run))
    events.Reload()
    logs["tensorboard"][run.name] = {
        "numbers": {
            tag: [(s.step, s.value) for s in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        },
        "hparams": list(events.summary_metadata),
    }
client = MlflowClient(f"sqlite:///{folder}/mlflow/mlflow.db")
for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
    key = run.info.run_name
    assert key not in logs["mlflow"], "two runs of one cell"
    logs["mlflow"][key] = {
        "numbers": {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        },
        "params": run.data.params, "tags": run.data.tags, "status": run.info.status,
        "user": run.info.user_id,
    }
print(json.dumps(logs))
"""
TRACKER = """
from toxbench import Tracker

class Listener:
    def __init__(self, folder):
        {start}

    @hookimpl
    def toxbench_run_started(self, run):
        {run}

    @hookimpl
    def toxbench_cell_finished(self, result):
        {cell}

    def close(self):
        {close}

@hookimpl
def toxbench_trackers():
    return [Tracker(name="{name}", start=Listener, patience={patience})]
"""
Cli = Callable[..., subprocess.CompletedProcess[str]]


def read_logs(store: CellStore) -> dict[str, dict[str, Any]]:
    """Return tracker -> stem of a cell -> logged content."""
    result = subprocess.run(
        [sys.executable, "-c", READ_LOGS, str(store.folder / "trackers")],
        capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    logs: dict[str, dict[str, Any]] = json.loads(result.stdout)
    return logs


def run_arguments(table: Path, checkpoint: Path, epochs: int) -> list[str]:
    return ["run", "--verbose", "--data", str(table),
            "--backbones", "bert", "--weights", f"bert={checkpoint}",
            "--baselines", "always-negative", "--max-length", "16", "--epochs", str(epochs),
            "--validation-size", "0.2", "--trackers", BOTH]  # fmt: skip


def assert_logged_as_stored(numbers: dict[str, list[list[float]]], record: CellRecord) -> None:
    """Compare every epoch, once and in order, and the final scores."""
    assert [step for step, _ in numbers.get("train/loss", [])] == [e.epoch for e in record.epochs]
    for epoch in record.epochs:
        at = epoch.epoch - 1
        assert numbers["train/loss"][at][1] == pytest.approx(epoch.train_loss, rel=1e-5)
        assert numbers["train/seconds"][at][1] == pytest.approx(epoch.seconds, rel=1e-5)
        for name, value in epoch.validation.items():
            if value is not None:
                logged = dict(numbers[f"validation/{name}"])
                assert logged[epoch.epoch] == pytest.approx(value, rel=1e-5)
    scores = record.metrics["0.5"]
    (micro_f1,) = numbers["test/micro_f1"]
    assert micro_f1 == [len(record.epochs), pytest.approx(scores["test"]["micro_f1"])]
    gap = scores["train"]["subset_accuracy"] - scores["test"]["subset_accuracy"]
    assert numbers["gap/subset_accuracy"][0][1] == pytest.approx(gap, rel=1e-5)
    micro_f1_global = record.metrics["global"]["test"]["micro_f1"]
    assert numbers["test/micro_f1.global"][0][1] == pytest.approx(micro_f1_global, rel=1e-5)


def test_killed_run_is_logged_completely(
    cli: Cli, forks: Forks, table: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = run_arguments(table, checkpoint, epochs=40)
    process = forks.stream(*arguments, cwd=tmp_path)
    epochs = (line for line in process.stderr if "loss" in line)
    assert [next(epochs) for _ in range(3)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = find_store(tmp_path / "results")
    assert not any("bert" in path.name for path in store.paths())

    result = cli(*arguments)
    assert result.returncode == 0, result.stderr
    assert "Tracker   tensorboard: tensorboard --logdir " in result.stderr
    logs = read_logs(store)
    records = {record.key.stem: record for record in store.records()}
    assert logs["tensorboard"].keys() == logs["mlflow"].keys() == records.keys()
    for stem, record in records.items():
        for runs in logs.values():
            assert_logged_as_stored(runs[stem]["numbers"], record)
        assert logs["tensorboard"][stem]["hparams"]
    (bert,) = (run for stem, run in logs["mlflow"].items() if stem.startswith("bert"))
    assert bert["params"]["settings.epochs"] == "40"
    assert bert["params"]["seed"] == "0"
    assert bert["tags"]["toxbench.synthetic"] == "false"
    assert bert["tags"]["toxbench.stand_in"] == "false"
    assert bert["tags"]["toxbench.exploratory"] == "true"
    assert (bert["status"], bert["user"], bert["tags"]["mlflow.user"]) == ("FINISHED", "", "")
    files = [p for p in (store.folder / "trackers").rglob("*") if p.is_file()]
    assert files
    assert not [p for p in files if socket.gethostname() in p.name]
    for path in files:
        content = path.read_bytes()
        assert b"you fool" not in content
        assert os.fsencode(tmp_path) not in content


def test_stored_cells_are_logged_once(tmp_path: Path) -> None:
    def run(*trackers: str) -> None:
        toxbench.run(backbones=[], trackers=trackers, results=tmp_path)

    run()
    folder = find_store(tmp_path).folder / "trackers"
    assert not folder.exists()
    run("tensorboard")
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert sum("tfevents" in path.name for path in files) == 2
    run("tensorboard")
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == files


def test_tune_logs_cells_but_not_trials(
    cli: Cli, table: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = run_arguments(table, checkpoint, epochs=1)[1:]
    result = cli("tune", *arguments, "--trials", "1", "--finalists", "1", "--finalist-seeds", "1",
                 "--finalist-folds", "1")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Tracker   tensorboard: tensorboard --logdir " in result.stderr
    store = find_store(tmp_path / "results")
    logs, records = read_logs(store), {record.key.stem: record for record in store.records()}
    assert any(stem.startswith("bert") for stem in records)
    assert logs["tensorboard"].keys() == logs["mlflow"].keys() == records.keys()
    for stem, record in records.items():
        for runs in logs.values():
            assert_logged_as_stored(runs[stem]["numbers"], record)


def test_unfinished_database_is_replaced(tmp_path: Path) -> None:
    toxbench.run(backbones=[], baselines=["always-negative"], results=tmp_path)
    store = find_store(tmp_path)
    folder = store.folder / "trackers" / "mlflow"
    folder.mkdir(parents=True)
    (folder / "mlflow.db.unfinished").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    (store.folder / "trackers" / "tensorboard").mkdir()  # because read_logs reads both
    toxbench.run(backbones=[], baselines=["always-negative"], results=tmp_path, trackers=["mlflow"])
    (record,) = store.records()
    assert_logged_as_stored(read_logs(store)["mlflow"][record.key.stem]["numbers"], record)


def write_tracker(site: Path, name: str, patience: float = 30.0, **bodies: str) -> None:
    """Install a tracker; ``bodies`` are statements of its methods."""
    parts = {"start": "pass", "run": "pass", "cell": "pass", "close": "pass"} | bodies
    write_plugin(site, name, TRACKER.format(name=name, patience=patience, **parts))


def test_failing_trackers_do_not_stop_the_run(cli: Cli, tmp_path: Path) -> None:
    site = tmp_path / "site"
    write_tracker(site, "good", start="self.file = folder / 'cells'",
                  cell="self.file.open('a').write(result.key.candidate + ' ')")  # fmt: skip
    write_tracker(site, "raises", cell="raise ValueError('no such server')")
    write_tracker(site, "no_start", start="raise OSError('not today')")
    write_tracker(site, "hangs", patience=1.0, cell="import time; time.sleep(600)")
    write_tracker(site, "stays", patience=1.0, close="import time; time.sleep(600)")
    write_tracker(site, "dies", cell="import os; os._exit(3)")
    write_tracker(site, "loud", cell="print('LOUD')")
    write_tracker(site, "changes", cell="object.__setattr__(result, 'metrics', {})")
    write_plugin(site, "no_hooks", (
        "from toxbench import Tracker\n"
        "@hookimpl\ndef toxbench_trackers():\n"
        "    return [Tracker(name='no_hooks', start=lambda folder: object())]\n"
    ))  # fmt: skip
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    names = [
        "good", "raises", "no_start", "hangs", "stays", "dies", "loud", "changes", "no_hooks"
    ]  # fmt: skip
    arguments = ("run", "--backbones", "none", "--baselines", "always-negative,tfidf-logreg")
    result = cli(*arguments, "--trackers", ",".join(names), PYTHONPATH=path)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if "warning: tracker " in line]
    warnings = {line.split("'")[1]: line for line in lines}
    assert len(warnings) == len(lines)  # one warning for each
    assert warnings.keys() == {"raises", "no_start", "hangs", "stays", "dies", "no_hooks"}
    assert "of dist-raises 1.0: ValueError: no such server" in warnings["raises"]
    assert "OSError: not today" in warnings["no_start"]
    assert "did not answer within 1 s" in warnings["hangs"]
    assert "ended with exit code 3" in warnings["dies"]
    assert "mark its methods @hookimpl" in warnings["no_hooks"]
    assert "LOUD" in result.stderr
    assert "LOUD" not in result.stdout
    store = find_store(tmp_path / "results")
    cells = (store.folder / "trackers" / "good" / "cells").read_text(encoding="utf-8")
    assert sorted(cells.split()) == ["always-negative", "tfidf-logreg"]
    assert all(record.metrics["0.5"]["test"] for record in store.records())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "no tracker is called 'tensorbord'; did you mean 'tensorboard'?"),
        ("tensorboard", 'not installed; first: pip install "toxbench[tensorboard]"'),
        ("mlflow", 'not installed; first: pip install "toxbench[mlflow]"'),
    ],
)
def test_unavailable_tracker_is_refused(
    command: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    message: str,
    tmp_path: Path,
) -> None:
    for package in ("tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
    code, stderr = command("run", "--backbones", "none", "--trackers", name)
    assert (code, message in stderr) == (2, True), stderr
    assert not (tmp_path / "results").exists()
