"""``toxbench new-backbone`` writes a distribution that pip installs and whose tests pass."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Forks
from support import TIMEOUT

from toxbench.cli.main import main
from toxbench.plugin.registry import Registry

pytestmark = pytest.mark.slow

Command = Callable[..., tuple[int, str]]
NAME = "Electra.like_2"
FILES = {
    "pyproject.toml", "toxbench_electra_like_2.py", "tests/test_toxbench_electra_like_2.py",
    "tox.ini", "README.md", ".gitignore",
}  # fmt: skip


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def create_distribution(into: Path, name: str = NAME) -> Path:
    with pytest.raises(SystemExit) as stop:
        main(["new-backbone", name, "--into", str(into)])
    assert stop.value.code == 0
    (folder,) = into.iterdir()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_distribution(tmp_path_factory.mktemp("work") / "of" / "an author")


@pytest.fixture(scope="module")
def site(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the scaffold is installed."""
    return install(folder, tmp_path_factory.mktemp("site"))


def install(folder: Path, site: Path) -> Path:
    """Install a scaffold in a folder, which is returned."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--target", str(site), str(folder)],
        check=True, capture_output=True, timeout=TIMEOUT,
    )  # fmt: skip
    return site


def run_scaffold_tests(folder: Path, site: Path, *words: str) -> str:
    """Test an installed scaffold like its tox.ini, but with the installed packages."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        check=False, timeout=TIMEOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_distribution_is_complete(folder: Path) -> None:
    assert folder.name == "toxbench-electra-like-2"
    assert files_in(folder) >= FILES
    assert not re.search(r"\$[a-z{]", "".join((folder / name).read_text() for name in FILES))
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == folder.name
    assert project["entry-points"]["toxbench"] == {NAME: "toxbench_electra_like_2"}
    assert any(name.startswith("toxbench>=") for name in project["dependencies"])


def test_scaffold_tests_pass_unchanged(folder: Path, site: Path) -> None:
    """They find the installed plugin, test its contract, and train it."""
    output = run_scaffold_tests(folder, site)
    assert re.search(r"^1[0-9] passed", output, re.MULTILINE), output
    assert "skipped" not in output


def test_uncommented_head_example_works(tmp_path: Path) -> None:
    folder = create_distribution(tmp_path / "work", "own-head")
    module = folder / "toxbench_own_head.py"
    parts = re.match(r"(.*?\n)(# class OwnHead.*?\n)\n(.*)", module.read_text(), re.DOTALL)
    assert parts is not None
    text, example, rest = parts.groups()
    example = re.sub(r"^# ?", "", example, flags=re.MULTILINE)
    rest = rest.replace("        Backbone(\n", "        OwnHead(\n")
    module.write_text(f"{text}\n\n{example}\n\n{rest}", encoding="utf-8")
    output = run_scaffold_tests(folder, install(folder, tmp_path / "site"), "-k", "TestContract")
    assert re.search(r"^1[0-9] passed", output, re.MULTILINE), output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../x", "is not a backbone name"),
        ("a/b", "is not a backbone name"),
        ("", "is not a backbone name"),
        ("a b", "is not a backbone name"),
        (".hidden", "is not a backbone name"),
        ("\x1b[31mred", "is not a backbone name"),
        ("n" * 65, "is not a backbone name"),
        ("bert", "'bert' is taken: backbone 'bert' of toxbench"),
        ("DistilBERT", "is taken: backbone 'distilbert' of toxbench"),
        ("formats", "is taken: plugin 'formats' of toxbench"),
        ("plugins", "the module toxbench_plugins is installed"),
    ],
)
def test_unusable_name_is_refused(command: Command, tmp_path: Path, name: str, words: str) -> None:
    code, stderr = command("new-backbone", name)
    assert (code, stderr.count("\n")) == (2, 1)
    assert words in stderr
    assert "\x1b" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_names_of_installed_plugins_are_refused(
    command: Command, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site))
    assert Registry.discover().backbone(NAME).distribution.startswith("toxbench-electra-like-2 ")
    code, stderr = command("new-backbone", NAME.upper())
    assert code == 2
    assert f"is taken: backbone '{NAME}' of toxbench-electra-like-2" in stderr


def test_existing_files_are_not_overwritten(command: Command, tmp_path: Path) -> None:
    (tmp_path / "toxbench-mine").mkdir()
    assert command("new-backbone", "mine") == (0, "")  # an empty folder is used
    module = tmp_path / "toxbench-mine" / "toxbench_mine.py"
    module.write_text("hours of work")
    code, stderr = command("new-backbone", "mine")
    assert (code, module.read_text()) == (2, "hours of work")
    assert "not empty" in stderr
    assert "--into" in stderr
    (tmp_path / "toxbench-file").touch()
    assert command("new-backbone", "file")[0] == 2
    (tmp_path / "toxbench-link").symlink_to(tmp_path / "away")
    assert command("new-backbone", "link")[0] == 2


def test_unwritable_folder_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, stderr = command("new-backbone", "mine", "--into", "file/below")
    assert code == 6
    assert "file/below" in stderr
    assert command("new-backbone", "mine", "--into", "x" * 300)[0] == 2


def test_full_disk_leaves_no_files(forks: Forks, tmp_path: Path) -> None:
    result = forks.run("new-backbone", "mine", "--into", str(tmp_path), bytes_a_file=1000)
    assert result.code == 6, result.err
    assert "make room and start the same command again" in result.error
    assert list(tmp_path.iterdir()) == []
