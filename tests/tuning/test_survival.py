"""Killed searches and lost databases: no finished trial is lost or repeated."""

import hashlib
import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toxbench.errors import NewerVersionError, StorageError
from toxbench.store.trials import read_tuned

if TYPE_CHECKING:
    from tuning.conftest import Search, Study

pytestmark = pytest.mark.slow

SLOW = ("--space", "epochs=16:20", "--pruner", "none")  # trials that last while they are observed


def trial_params(search: "Search") -> dict[int, str]:
    """Return number -> parameters of the search's trials."""
    return {r.number: json.dumps(r.params, sort_keys=True) for r in search.trials}


@pytest.mark.faults(54)
def test_repeatedly_killed_search_has_the_same_trials(
    search: "Search", inputs: "Search", tmp_path: Path
) -> None:
    """The kills are at random times within the duration of an uninterrupted run."""
    rng = random.Random(4)
    uninterrupted = inputs.copy(tmp_path / "uninterrupted")
    started = time.monotonic()
    assert uninterrupted.start().wait() == 0
    duration = time.monotonic() - started
    for _ in range(4):
        before = search.files
        command = search.start()
        time.sleep(rng.uniform(0, duration))
        command.kill()
        assert before.items() <= search.files.items()
    before = search.files
    command = search.start()
    assert command.wait() == 0, command.output
    assert before.items() <= search.files.items()
    search.check(trials=len(uninterrupted.trials))
    assert trial_params(search) == trial_params(uninterrupted)


def test_lost_trials_and_finalists_are_repeated(search: "Search", study: "type[Study]") -> None:
    """The kills are in the first trial, in a later trial and in a finalist of a grid search."""
    options = ("--sampler", "grid", "--pruner", "none", "--trials", "50",
               "--space", "epochs=12,13,14", "--space", "learning_rate=1e-4,1e-3")  # fmt: skip
    rng = random.Random(7)
    for count in (0, 3):
        command = search.start(*options)
        command.wait_until(lambda n=count: len(search.trials) >= n and study(search.url).running)
        time.sleep(rng.uniform(0, 0.1))
        command.kill()
    command = search.start(*options)
    command.wait_until(lambda: list(search.results.glob("*/tuning/*/finalists-*/*.json")))
    command.kill()
    before = search.files
    assert len(search.trials) == 7
    command = search.start(*options)
    assert command.wait() == 0, command.output
    assert before.items() <= search.files.items()
    search.check(trials=7)
    grid_params = [r.params for r in search.trials if not r.is_default]
    points = {(params["epochs"], params["learning_rate"]) for params in grid_params}
    assert points == {(epochs, rate) for epochs in (12, 13, 14) for rate in (1e-4, 1e-3)}


def test_interrupted_search_reports_and_resumes(search: "Search", study: "type[Study]") -> None:
    command = search.start(*SLOW)
    command.wait_until(lambda: search.trials and study(search.url).running)
    command.signal(signal.SIGINT)
    assert command.wait() == 130, command.output
    assert "To resume: toxbench tune" in command.output
    assert "Traceback" not in command.output
    before = search.files
    assert before
    command = search.start(*SLOW)
    assert command.wait() == 0, command.output
    assert before.items() <= search.files.items()
    search.check(trials=5)


def test_survivor_finishes_a_shared_search(search: "Search", study: "type[Study]") -> None:
    options = (*SLOW, "--trials", "6")
    victim, survivor = search.start(*options), search.start(*options)
    survivor.wait_until(lambda: len(search.trials) >= 2 and len(study(search.url).running) == 2)
    victim.kill()
    assert survivor.wait() == 0, survivor.output
    search.check(trials=6)


def test_worker_continues_after_losing_its_trial(search: "Search", study: "type[Study]") -> None:
    """This happens if a machine sleeps for longer than the grace period."""
    command = search.start(*SLOW, "--space", "epochs=50:60", "--trials", "3")
    command.wait_until(lambda: study(search.url).running == [1])  # after the default trial
    lost: list[int] = []
    command.wait_until(lambda: lost.extend(study(search.url).fail_running_trials()) or lost)
    assert command.wait() == 0, command.output
    search.check(trials=3)
    assert not set(lost) & {record.number for record in search.trials}


# The database


def delete_file(path: Path) -> None:
    path.unlink()


def truncate_file(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: random.Random(1).randrange(1000, len(content))])


def write_garbage(path: Path) -> None:
    path.write_bytes(random.Random(2).randbytes(50_000))


def overwrite_parts(path: Path) -> None:
    content, rng = bytearray(path.read_bytes()), random.Random(3)
    for _ in range(8):
        start = rng.randrange(len(content))
        content[start : start + 3000] = rng.randbytes(len(content[start : start + 3000]))
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [delete_file, truncate_file, write_garbage, overwrite_parts])
def test_lost_database_is_restored_from_records(
    finished: "Search", study: "type[Study]", damage: Callable[[Path], None]
) -> None:
    files, cells = finished.files, finished.cells
    damage(finished.database)
    finished.tune(tune={"trials": 7})
    assert files.items() < finished.files.items()
    finished.check(trials=7, finalists=len(finished.finalists))
    trials = finished.trials
    assert [record.number for record in trials] == list(range(7))
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    assert [(trial.number, trial.state.name) for trial in study(finished.url).trials] == [
        (record.number, states[record.state]) for record in trials
    ]
    assert cells.items() <= finished.cells.items()


def test_deleted_records_are_restored_from_database(finished: "Search") -> None:
    files = finished.files
    for path in sorted(finished.results.glob("*/tuning/*/*/trial-*.json"))[::2]:
        path.unlink()
    assert len(finished.files) < len(files)
    finished.tune()
    assert finished.files == files


def test_trials_lost_in_both_are_repeated(finished: "Search") -> None:
    lost = sorted(finished.study.glob("trials/trial-*.json"))[::2]
    names = {path.name for path in lost}
    remaining = {p: content for p, content in finished.files.items() if Path(p).name not in names}
    numbers = trial_params(finished).keys()
    for path in lost:
        path.unlink()
    finished.database.unlink()
    finished.tune()
    assert remaining.items() <= finished.files.items()
    trials = finished.trials
    assert len(trials) == 5
    assert len({record.number for record in trials}) == 5
    assert [record.is_default for record in trials].count(True) == 1
    params = [text for number, text in trial_params(finished).items() if number in numbers]
    assert len(set(params)) == len(params)


def test_moved_results_folder_is_resumed(finished: "Search", tmp_path: Path) -> None:
    moved = finished.copy(tmp_path / "moved")
    shutil.rmtree(finished.results)
    files = moved.files
    moved.tune(tune={"trials": 6})
    assert files.items() < moved.files.items()
    assert [record.number for record in moved.trials] == list(range(6))
    assert not finished.results.exists()


def test_lost_database_does_not_change_later_trials(finished: "Search", tmp_path: Path) -> None:
    uninterrupted = finished.copy(tmp_path / "uninterrupted")
    finished.database.unlink()
    for search in (finished, uninterrupted):
        search.tune(tune={"trials": 7})
    assert trial_params(finished) == trial_params(uninterrupted)
    assert len(trial_params(uninterrupted)) == 7


# Damaged and newer records


@pytest.mark.faults(35)
def test_damaged_trials_are_moved_and_restored(finished: "Search") -> None:
    first, second, *_ = sorted(finished.study.glob("trials/trial-*.json"))
    tuned, files = finished.study / "tuned.toml", finished.files
    damaged = {path: path.read_bytes()[:-7] for path in (first, second, tuned)}
    for path, content in damaged.items():
        path.write_bytes(content)
    finished.tune()
    for path, content in damaged.items():
        assert path.with_name(f"{path.name}.corrupt").read_bytes() == content
    assert read_tuned(tuned).backbone == "bert"
    assert finished.files == files  # restored from the database
    finished.check(trials=5, finalists=len(finished.finalists))


def write_newer_trial(study: Path) -> Path:
    path = min(study.glob("trials/trial-*.json"))
    record = json.loads(json.loads(path.read_bytes())["record"])
    text = json.dumps(record | {"schema_version": 2, "new": 1})
    signed = {"sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(), "record": text}
    path.write_text(json.dumps(signed), encoding="utf-8")
    return path


def write_newer_settings(study: Path) -> Path:
    path = study / "tuned.toml"
    text = path.read_text(encoding="utf-8").replace("schema_version = 1", "schema_version = 2")
    path.write_text(f"{text}\n[new]\n", encoding="utf-8")
    return path


@pytest.mark.faults(38)
@pytest.mark.parametrize("write_newer", [write_newer_trial, write_newer_settings])
def test_files_of_newer_toxbench_are_unchanged(
    finished: "Search", write_newer: Callable[[Path], Path]
) -> None:
    path = write_newer(finished.study)
    content = path.read_bytes()
    with pytest.raises(NewerVersionError, match=f"{path.name} was written by a newer toxbench"):
        finished.tune(tune={"trials": 6})
    assert path.read_bytes() == content
    assert list(finished.results.rglob("*.corrupt*")) == []


@pytest.mark.faults(38)
def test_settings_without_schema_version_are_read(finished: "Search") -> None:
    path = finished.study / "tuned.toml"
    tuned = read_tuned(path)
    text = path.read_text(encoding="utf-8")
    assert "schema_version = 1\n" in text
    path.write_text(text.replace("schema_version = 1\n", ""), encoding="utf-8")
    assert read_tuned(path) == tuned


@pytest.mark.faults(39)
@pytest.mark.parametrize("name", ["", "trials"])
def test_symbolic_links_are_not_followed(finished: "Search", tmp_path: Path, name: str) -> None:
    link, target = finished.study / name, tmp_path / "target"
    shutil.move(link, target)
    link.symlink_to(target)
    times = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    with pytest.raises(StorageError, match=f"{link.name} is a symbolic link"):
        finished.tune(tune={"trials": 6})
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == times
