"""Searches that are killed, and databases that are lost: nothing finished is lost or repeated."""

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

SLOW = ("--space", "epochs=16:20", "--pruner", "none")  # epochs of a trial: time to meet it in


def draws(search: "Search") -> dict[int, str]:
    """Number -> what was drawn, of the search's trials."""
    return {r.number: json.dumps(r.params, sort_keys=True) for r in search.trials}


def test_a_search_that_is_killed_again_and_again_ends_as_if_it_was_not(
    search: "Search", inputs: "Search", tmp_path: Path
) -> None:
    """Kills at random moments, which the length of an undisturbed run spreads over all phases."""
    rng = random.Random(4)
    undisturbed = inputs.copy(tmp_path / "undisturbed")
    started = time.monotonic()
    assert undisturbed.start().wait() == 0
    length = time.monotonic() - started
    for _ in range(4):
        before = search.files
        command = search.start()
        time.sleep(rng.uniform(0, length))
        command.kill()
        assert before.items() <= search.files.items()
    before = search.files
    command = search.start()
    assert command.wait() == 0, command.said
    assert before.items() <= search.files.items()
    search.check(trials=len(undisturbed.trials))


def test_what_was_lost_in_trials_and_finalists_is_taken_again(
    search: "Search", study: "type[Study]"
) -> None:
    """Kills in the first trial, in a later one, and among the finalists, of a grid."""
    words = ("--sampler", "grid", "--pruner", "none", "--trials", "50",
             "--space", "epochs=12,13,14", "--space", "learning_rate=1e-4,1e-3")  # fmt: skip
    rng = random.Random(7)
    for count in (0, 3):
        command = search.start(*words)
        command.until(lambda n=count: len(search.trials) >= n and study(search.url).running)
        time.sleep(rng.uniform(0, 0.1))
        command.kill()
    command = search.start(*words)
    command.until(lambda: list(search.results.glob("*/tuning/*/finalists-*/*.json")))
    command.kill()
    before = search.files
    assert len(search.trials) == 7
    command = search.start(*words)
    assert command.wait() == 0, command.said
    assert before.items() <= search.files.items()
    search.check(trials=7)
    drawn = [r.params for r in search.trials if not r.is_default]
    points = {(params["epochs"], params["learning_rate"]) for params in drawn}
    assert points == {(epochs, rate) for epochs in (12, 13, 14) for rate in (1e-4, 1e-3)}


def test_an_interrupted_search_says_so_and_leaves_its_trials(
    search: "Search", study: "type[Study]"
) -> None:
    command = search.start(*SLOW)
    command.until(lambda: search.trials and study(search.url).running)
    command.signal(signal.SIGINT)
    assert command.wait() == 130, command.said
    assert "To resume: toxbench tune" in command.said
    assert "Traceback" not in command.said
    before = search.files
    assert before
    command = search.start(*SLOW)
    assert command.wait() == 0, command.said
    assert before.items() <= search.files.items()
    search.check(trials=5)


def test_two_workers_share_a_search_and_one_of_them_is_killed(
    search: "Search", study: "type[Study]"
) -> None:
    words = (*SLOW, "--trials", "6")
    one, two = search.start(*words), search.start(*words)
    two.until(lambda: len(search.trials) >= 2 and len(study(search.url).running) == 2)
    one.kill()
    assert two.wait() == 0, two.said
    search.check(trials=6)


def test_a_worker_whose_trial_was_given_to_another_one_goes_on(
    search: "Search", study: "type[Study]"
) -> None:
    """As after a machine slept for longer than the others waited."""
    command = search.start(*SLOW, "--space", "epochs=50:60")
    command.until(lambda: study(search.url).running == [1])  # the default is told of, too
    lost: list[int] = []
    command.until(lambda: lost.extend(study(search.url).lose()) or lost)
    assert command.wait() == 0, command.said
    search.check(trials=5)
    assert not set(lost) & {record.number for record in search.trials}


# The database


def make_nothing(path: Path) -> None:
    path.unlink()


def make_short(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: random.Random(1).randrange(1000, len(content))])


def make_garbage(path: Path) -> None:
    path.write_bytes(random.Random(2).randbytes(50_000))


def make_holes(path: Path) -> None:
    content, rng = bytearray(path.read_bytes()), random.Random(3)
    for _ in range(8):
        start = rng.randrange(len(content))
        content[start : start + 3000] = rng.randbytes(len(content[start : start + 3000]))
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [make_nothing, make_short, make_garbage, make_holes])
def test_a_lost_database_is_made_again_from_the_records(
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


def test_records_that_were_deleted_come_back_from_the_database(finished: "Search") -> None:
    files = finished.files
    for path in sorted(finished.results.glob("*/tuning/*/*/trial-*.json"))[::2]:
        path.unlink()
    assert len(finished.files) < len(files)
    finished.tune()
    assert finished.files == files


def test_what_is_lost_in_both_places_is_trained_again(finished: "Search") -> None:
    lost = sorted(finished.study.glob("trials/trial-*.json"))[::2]
    kept = {p: b for p, b in finished.files.items() if not any(p.endswith(n.name) for n in lost)}
    known = draws(finished)
    for path in lost:
        path.unlink()
    finished.database.unlink()
    finished.tune()
    assert kept.items() <= finished.files.items()
    trials = finished.trials
    assert len(trials) == 5
    assert len({record.number for record in trials}) == 5
    assert [record.is_default for record in trials].count(True) == 1
    drawn = [draw for number, draw in draws(finished).items() if number in known]
    assert len(set(drawn)) == len(drawn)


def test_a_results_folder_that_was_moved_goes_on_elsewhere(
    finished: "Search", tmp_path: Path
) -> None:
    moved = finished.copy(tmp_path / "elsewhere")
    shutil.rmtree(finished.results)
    files = moved.files
    moved.tune(tune={"trials": 6})
    assert files.items() < moved.files.items()
    assert [record.number for record in moved.trials] == list(range(6))
    assert not finished.results.exists()


def test_what_is_drawn_next_does_not_depend_on_what_was_lost(
    finished: "Search", tmp_path: Path
) -> None:
    other = finished.copy(tmp_path / "undisturbed")
    finished.database.unlink()
    for search in (finished, other):
        search.tune(tune={"trials": 7})
    assert draws(finished) == draws(other)
    assert len(draws(other)) == 7


# Damaged and newer records


@pytest.mark.faults(35)
def test_damaged_trials_are_moved_aside_and_come_back(finished: "Search") -> None:
    first, second, *_ = sorted(finished.study.glob("trials/trial-*.json"))
    tuned, whole = finished.study / "tuned.toml", finished.files
    damaged = {path: path.read_bytes()[:-7] for path in (first, second, tuned)}
    for path, content in damaged.items():
        path.write_bytes(content)
    finished.tune()
    for path, content in damaged.items():
        assert path.with_name(f"{path.name}.corrupt").read_bytes() == content
    assert read_tuned(tuned).backbone == "bert"
    assert finished.files == whole  # the database knew them
    finished.check(trials=5, finalists=len(finished.finalists))


def newer_trial(study: Path) -> Path:
    path = min(study.glob("trials/trial-*.json"))
    record = json.loads(json.loads(path.read_bytes())["record"])
    text = json.dumps(record | {"schema_version": 2, "new": 1})
    signed = {"sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(), "record": text}
    path.write_text(json.dumps(signed), encoding="utf-8")
    return path


def newer_tuned(study: Path) -> Path:
    path = study / "tuned.toml"
    text = path.read_text(encoding="utf-8").replace("schema_version = 1", "schema_version = 2")
    path.write_text(f"{text}\n[new]\n", encoding="utf-8")
    return path


@pytest.mark.faults(38)
@pytest.mark.parametrize("make", [newer_trial, newer_tuned])
def test_what_a_newer_toxbench_wrote_is_left_alone(
    finished: "Search", make: Callable[[Path], Path]
) -> None:
    path = make(finished.study)
    content = path.read_bytes()
    with pytest.raises(NewerVersionError, match=f"{path.name} was written by a newer toxbench"):
        finished.tune(tune={"trials": 6})
    assert path.read_bytes() == content
    assert list(finished.results.rglob("*.corrupt*")) == []


@pytest.mark.faults(39)
@pytest.mark.parametrize("name", ["", "trials"])
def test_nothing_is_written_through_a_link(finished: "Search", tmp_path: Path, name: str) -> None:
    link, elsewhere = finished.study / name, tmp_path / "elsewhere"
    shutil.move(link, elsewhere)
    link.symlink_to(elsewhere)
    there = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    with pytest.raises(StorageError, match=f"{link.name} is a symbolic link"):
        finished.tune(tune={"trials": 6})
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == there
