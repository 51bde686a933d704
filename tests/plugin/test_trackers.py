"""Trackers: what they log, read back with the real readers, and what they cannot harm."""

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
from plugin_site import write_plugin

import toxbench
from toxbench.records import CellRecord
from toxbench.store.cells import CellStore, find_store

BOTH = "tensorboard,mlflow"
# In a process of its own: what these packages do when they are imported is none of the tests'.
READ = """
import json, os, sys, time
from pathlib import Path
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder, found = Path(sys.argv[1]), {"tensorboard": {}, "mlflow": {}}
for run in (p for p in (folder / "tensorboard").iterdir() if p.is_dir()):
    events = EventAccumulator(str(run))
    events.Reload()
    found["tensorboard"][run.name] = {
        "numbers": {
            tag: [(s.step, s.value) for s in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        },
        "hparams": list(events.summary_metadata),
    }
client = MlflowClient(f"sqlite:///{folder}/mlflow/mlflow.db")
for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
    key = run.info.run_name
    assert key not in found["mlflow"], "two runs of one cell"
    found["mlflow"][key] = {
        "numbers": {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        },
        "params": run.data.params, "tags": run.data.tags, "status": run.info.status,
        "user": run.info.user_id,
    }
print(json.dumps(found))
"""
SITE = """
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


def read(store: CellStore) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(store.folder / "trackers")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def asked(table: Path, checkpoint: Path, epochs: int) -> list[str]:
    return ["run", "--data", str(table), "--backbones", "bert", "--weights", f"bert={checkpoint}",
            "--baselines", "always-negative", "--max-length", "16", "--epochs", str(epochs),
            "--validation-size", "0.2", "--trackers", BOTH]  # fmt: skip


def assert_as_stored(numbers: dict[str, list[list[float]]], record: CellRecord) -> None:
    """Check every epoch, once and in order, and final scores."""
    assert [step for step, _ in numbers.get("train/loss", [])] == [e.epoch for e in record.epochs]
    for epoch in record.epochs:
        at = epoch.epoch - 1
        assert numbers["train/loss"][at][1] == pytest.approx(epoch.train_loss, rel=1e-5)
        assert numbers["train/seconds"][at][1] == pytest.approx(epoch.seconds, rel=1e-5)
        for name, value in epoch.validation.items():
            if value is not None:
                said = dict(numbers[f"validation/{name}"])
                assert said[epoch.epoch] == pytest.approx(value, rel=1e-5)
    scores = record.metrics["0.5"]
    (micro_f1,) = numbers["test/micro_f1"]
    assert micro_f1 == [record.best_epoch or 0, pytest.approx(scores["test"]["micro_f1"])]
    gap = scores["train"]["subset_accuracy"] - scores["test"]["subset_accuracy"]
    assert numbers["gap/subset_accuracy"][0][1] == pytest.approx(gap, rel=1e-5)
    chosen = record.metrics["global"]["test"]["micro_f1"]
    assert numbers["test/micro_f1.global"][0][1] == pytest.approx(chosen, rel=1e-5)


def test_a_killed_run_is_logged_as_if_it_had_not_been(
    cli: Cli, table: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = asked(table, checkpoint, epochs=40)
    running = subprocess.Popen(
        [sys.executable, "-m", "toxbench", *words], cwd=tmp_path, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert running.stderr is not None
    epochs = (line for line in running.stderr if "loss" in line)
    assert [next(epochs) for _ in range(3)]
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stderr.close()
    store = find_store(tmp_path / "results")
    assert not any("bert" in path.name for path in store.paths())

    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert "Tracker   tensorboard: tensorboard --logdir " in done.stderr
    found = read(store)
    records = {record.key.stem: record for record in store.records()}
    assert found["tensorboard"].keys() == found["mlflow"].keys() == records.keys()
    for stem, record in records.items():
        for runs in found.values():
            assert_as_stored(runs[stem]["numbers"], record)
        assert found["tensorboard"][stem]["hparams"]
    (bert,) = (run for stem, run in found["mlflow"].items() if stem.startswith("bert"))
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


def test_what_was_stored_before_anybody_asked_is_told_once(tmp_path: Path) -> None:
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


def test_of_a_search_the_cells_are_logged_and_the_trials_are_not(
    cli: Cli, table: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = asked(table, checkpoint, epochs=1)[1:]
    done = cli("tune", *words, "--trials", "1", "--finalists", "1", "--finalist-seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "Tracker   tensorboard: tensorboard --logdir " in done.stderr
    store = find_store(tmp_path / "results")
    found, records = read(store), {record.key.stem: record for record in store.records()}
    assert any(stem.startswith("bert") for stem in records)
    assert found["tensorboard"].keys() == found["mlflow"].keys() == records.keys()
    for stem, record in records.items():
        for runs in found.values():
            assert_as_stored(runs[stem]["numbers"], record)


def test_a_database_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    toxbench.run(backbones=[], baselines=["always-negative"], results=tmp_path)
    store = find_store(tmp_path)
    folder = store.folder / "trackers" / "mlflow"
    folder.mkdir(parents=True)
    (folder / "mlflow.db.unfinished").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    (store.folder / "trackers" / "tensorboard").mkdir()  # only because both are read
    toxbench.run(backbones=[], baselines=["always-negative"], results=tmp_path, trackers=["mlflow"])
    (record,) = store.records()
    assert_as_stored(read(store)["mlflow"][record.key.stem]["numbers"], record)


def plugin(site: Path, name: str, patience: float = 30.0, **does: str) -> None:
    parts = {"start": "pass", "run": "pass", "cell": "pass", "close": "pass"} | does
    write_plugin(site, name, SITE.format(name=name, patience=patience, **parts))


def test_a_tracker_harms_nothing_whatever_it_does(cli: Cli, tmp_path: Path) -> None:
    site = tmp_path / "site"
    plugin(site, "good", start="self.file = folder / 'heard'",
           cell="self.file.open('a').write(result.key.candidate + ' ')")  # fmt: skip
    plugin(site, "raises", cell="raise ValueError('no such server')")
    plugin(site, "never", start="raise OSError('not today')")
    plugin(site, "hangs", patience=1.0, cell="import time; time.sleep(600)")
    plugin(site, "stays", patience=1.0, close="import time; time.sleep(600)")
    plugin(site, "dies", cell="import os; os._exit(3)")
    plugin(site, "loud", cell="print('LOUD')")
    plugin(site, "changes", cell="object.__setattr__(result, 'metrics', {})")
    write_plugin(site, "deaf", "from toxbench import Tracker\n@hookimpl\ndef toxbench_trackers():\n"
                 "    return [Tracker(name='deaf', start=lambda folder: object())]\n")  # fmt: skip
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    names = ["good", "raises", "never", "hangs", "stays", "dies", "loud", "changes", "deaf"]
    words = ("run", "--backbones", "none", "--baselines", "always-negative,tfidf-logreg")
    done = cli(*words, "--trackers", ",".join(names), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if "warning: tracker " in line]
    said = {line.split("'")[1]: line for line in warned}
    assert len(said) == len(warned)  # once each
    assert said.keys() == {"raises", "never", "hangs", "stays", "dies", "deaf"}
    assert "of dist-raises 1.0: ValueError: no such server" in said["raises"]
    assert "OSError: not today" in said["never"]
    assert "did not answer within 1 s" in said["hangs"]
    assert "ended with exit code 3" in said["dies"]
    assert "mark its methods @hookimpl" in said["deaf"]
    assert "LOUD" in done.stderr
    assert "LOUD" not in done.stdout
    store = find_store(tmp_path / "results")
    heard = (store.folder / "trackers" / "good" / "heard").read_text(encoding="utf-8")
    assert sorted(heard.split()) == ["always-negative", "tfidf-logreg"]
    assert all(record.metrics["0.5"]["test"] for record in store.records())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tensorbord", "no tracker is called 'tensorbord'; did you mean 'tensorboard'?"),
        ("tensorboard", 'not installed; first: pip install "toxbench[tensorboard]"'),
        ("mlflow", 'not installed; first: pip install "toxbench[mlflow]"'),
    ],
)
def test_what_cannot_be_had_is_refused(
    command: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    says: str,
    tmp_path: Path,
) -> None:
    for package in ("tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
    code, err = command("run", "--backbones", "none", "--trackers", name)
    assert (code, says in err) == (2, True), err
    assert not (tmp_path / "results").exists()
