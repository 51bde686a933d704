"""Names that lead out of the results folder, or that are invalid file names."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from plugin_site import write_plugin
from support import write_table

import toxbench
from toxbench.cli.main import cli as root
from toxbench.cli.main import main
from toxbench.errors import SettingsError, ToxbenchError
from toxbench.plugin.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.faults(39)]
LONG = "n" * 300
NAMES = ["../x", "/x/../../x", "..", "", " ", LONG, "a/" + LONG, "x\ny", "\x1b[2Jx", "-", "x\udcff",
         "con.csv", "..\\x", "%2e%2e/x", "~root", "$HOME", "x" * 5000, "a\0b"]  # fmt: skip
# Options that keep each command short; --results and --data get a value in any case.
QUICK = {"run": ["--dry-run", "--backbones", "none"],
         "tune": ["--dry-run", "--weights", "stand-in", "--backbones", "distilbert"],
         "curve": ["--dry-run", "--backbones", "none"],
         "speed": ["--backbones", "none"]}  # fmt: skip


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in sorted(root.commands.items()):
        if isinstance(command, click.Group):
            yield from (((name, sub), below) for sub, below in sorted(command.commands.items()))
        else:
            yield (name,), command


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A nested folder with a table and its results."""
    home = tmp_path_factory.mktemp("outside") / "inside" / "home"
    home.mkdir(parents=True)
    write_table(home / "table.csv")
    toxbench.run(home / "table.csv", backbones=[], results=home / "results", plugins=[])
    return home


@pytest.fixture(autouse=True)
def _offline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "200")


def files(folder: Path) -> dict[str, float]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def call(capsys: pytest.CaptureFixture[str], *words: str) -> int:
    """Run a command in this process, check its output and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    output = capsys.readouterr()
    code = int(str(stop.value.code))
    assert code not in {1, 130}, (words, output.err)
    assert "Traceback" not in output.out + output.err, words
    assert not {"\x1b", "\x00"} & set(output.out + output.err), words
    if code:
        errors = [line for line in output.err.splitlines() if line.startswith("toxbench: error:")]
        assert errors, (words, output.err)
        assert code in {2, 3, 4, 6, 75}, (words, output.err)
    return code


ALL_OPTIONS = [
    (path, option)
    for path, command in commands()
    for option in command.params
    if not getattr(option, "is_flag", False) and path != ("data", "fetch")
]
OF_RUN = {option.name for path, option in ALL_OPTIONS if path == ("run",)}
SHARING = {"tune", "curve", "speed", "data"}  # read these options by the functions that run uses
OPTIONS = [
    (path, option)
    for path, option in ALL_OPTIONS
    if path[0] not in SHARING or option.name not in OF_RUN
]


def _id(value: object) -> str:
    if isinstance(value, click.Parameter):
        return str(value.name)
    return "-".join(map(str, value))  # type: ignore[call-overload]


@pytest.mark.parametrize(("path", "option"), OPTIONS, ids=_id)
def test_hostile_option_values_are_handled(
    home: Path, capsys: pytest.CaptureFixture[str], path: tuple[str, ...], option: click.Parameter
) -> None:
    before = files(home.parents[1])
    for name in NAMES:
        if isinstance(option, click.Argument):
            words = [*path, "--", name]
        else:
            table = ["--data", "table.csv"] if path[0] in {"run", "tune", "curve"} else []
            file = ["table.csv"] if path[0] == "data" and path[1] in {"show", "check"} else []
            words = [*path, *file, *table, *QUICK.get(path[0], []), option.opts[0], name]
        call(capsys, *words)
    written = {path for path, when in files(home.parents[1]).items() if before.get(path) != when}
    content = {("data", "sample"): b"CommentId", ("publish",): b"<!DOCTYPE html>"}.get(path)
    if content is not None:  # it writes to the path in its argument
        assert all(Path(file).read_bytes().startswith(content) for file in written)
        for file in written:
            os.unlink(file)
    else:
        allowed = ("/results/", "/home/toxbench-")  # the latter is the target of new-backbone
        assert {file for file in written if not any(part in file for part in allowed)} == set()


@pytest.mark.parametrize("word", ["bert", "hub"])
@pytest.mark.parametrize("name", NAMES)
def test_hostile_weights_and_keys_are_refused(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, word: str
) -> None:
    assert call(capsys, "run", "--dry-run", "--backbones", "bert",
                "--weights", f"{name}={word}") == 2  # fmt: skip
    if word == "bert":
        assert call(capsys, "run", "--dry-run", "--backbones", "bert", "--weights",
                    f"bert={name}") == 2  # fmt: skip
        return
    config = home / "names.toml"
    key = json.dumps(name)  # a string that TOML reads as well
    try:
        config.write_text(f"[backbone.{key}]\nepochs = 1\n", encoding="utf-8")
        assert call(capsys, "run", "--dry-run", "--config", str(config)) == 2
        config.write_text(f"{key} = 1\n", encoding="utf-8")
        assert call(capsys, "run", "--dry-run", "--config", str(config)) == 2
    finally:
        config.unlink()


PATHS: dict[str, Any] = {
    "results": lambda path: {"results": path},
    "data": lambda path: {"data": path},
    "config": lambda path: {"config": path},
    "split_file": lambda path: {"split": {"split_file": path}},
    "test": lambda path: {"data": "table.csv", "split": {"test": path}},
    "weights": lambda path: {"backbones": ["bert"], "weights": f"bert={path}"},
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("path", ["a\0b", LONG, f"{LONG}/x.csv", "x/" * 2100, "x\ud800"])
def test_api_refuses_invalid_paths(name: str, path: str) -> None:
    with pytest.raises(SettingsError) as caught:
        toxbench.run(**{"backbones": [], **PATHS[name](path)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["a\0b", LONG])
def test_api_refuses_invalid_results_folders(path: str) -> None:
    for function in (toxbench.load, toxbench.rescore):
        with pytest.raises(ToxbenchError):
            function(path)


@pytest.mark.parametrize("name", ["..\\x.csv", "\x1b[2J\n.csv", "...csv", f"{'é' * 120}.csv",
                                  " .csv", "-rf.csv", "a" * 251 + ".csv", "$(id).csv"])  # fmt: skip
def test_results_of_hostile_table_names_stay_inside(tmp_path: Path, name: str) -> None:
    table = write_table(tmp_path / name)
    results = tmp_path / "deep" / "results"
    toxbench.run(table, backbones=[], baselines=["always-negative"], results=results)
    (folder,) = results.iterdir()
    assert set(os.listdir(tmp_path)) == {name, "deep"}
    assert os.listdir(tmp_path / "deep") == ["results"]
    assert folder.name.isascii()
    assert folder.name.replace("-", "").replace("_", "").isalnum()


def test_labels_and_groups_create_no_files(tmp_path: Path) -> None:
    names = ["../up", "/etc/x", LONG, "a\tb", "=x"]
    lines = [",".join(["id", "text", "video_id", *names])]
    lines += [f"../{r},text {r},../../g{r % 7},{r % 2},{r % 3 // 2},0,1,{r % 2}" for r in range(60)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    before = {*tmp_path.rglob("*")}
    toxbench.run(table, backbones=[], results=tmp_path / "results", split={"split": "grouped"})
    new = {*tmp_path.rglob("*")} - before
    assert all(path.is_relative_to(tmp_path / "results") for path in new)


@pytest.mark.parametrize("name", ["../x", "/x", "..", "x/y", LONG, "x\0", "x\n", ".x", ""])
def test_hostile_plugin_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_plugin(tmp_path, "mine", (
        f"@hookimpl\ndef toxbench_baselines():\n    return [Baseline(name={name!r}, fit=print)]\n"
    ))  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "module_of_mine", raising=False)
    registry = Registry.discover(["mine"])
    assert name not in registry.baselines
    assert "must be 1 to 64 letters" in registry.problems[0].message
