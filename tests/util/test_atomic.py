"""Atomic writes: a file is complete or does not exist."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from toxbench.errors import StorageError
from toxbench.util.atomic import (
    atomic_folder,
    cache_folder,
    remove_leftovers,
    write_atomically,
)


@pytest.mark.parametrize("data", [b"", b"\x00\xff\r\n", b"x" * 2**20], ids=len)
def test_written_data_is_read_back(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    write_atomically(path, data)
    assert path.read_bytes() == data
    assert [f.name for f in path.parent.iterdir()] == ["file.bin"]


def test_open_readers_keep_the_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"a longer first content")
    with path.open("rb") as reader:
        write_atomically(path, b"second")
        assert reader.read() == b"a longer first content"
    assert path.read_bytes() == b"second"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_file_mode_follows_the_umask(tmp_path: Path, mask: int) -> None:
    previous = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"data")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_failed_rename_leaves_no_file(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*target: ") as caught:
        write_atomically(target, b"data")
    assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == [target]
    assert list(target.iterdir()) == []


def test_too_long_name_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        write_atomically(tmp_path / ("x" * 300), b"data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["file", "folder/file"])
def test_file_in_place_of_folder_is_refused(tmp_path: Path, below: str) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_bytes(b"mine")
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(blocked / below, b"data")
    assert blocked.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [blocked]


def test_other_errors_are_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", "text")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_when_its_context_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model"
    with atomic_folder(path) as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "weights").write_bytes(b"\x00" * 2**20)
        (temporary / "config").write_text("{}")
        assert not path.exists()
    assert (path / "below" / "weights").read_bytes() == b"\x00" * 2**20
    assert (path / "config").read_text() == "{}"
    assert list(path.parent.iterdir()) == [path]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with atomic_folder(tmp_path / "model") as temporary:
        (temporary / "config").write_text("{}")
    assert (tmp_path / "model" / "config").read_text() == "{}"
    assert [f.name for f in tmp_path.iterdir()] == ["model"]


def test_a_folder_with_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config").write_text("old")
    with (
        pytest.raises(StorageError, match=r"cannot write .*model: "),
        atomic_folder(tmp_path / "model") as temporary,
    ):
        (temporary / "config").write_text("new")
    assert (tmp_path / "model" / "config").read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "make room"),
        (SafetensorError("Error while serializing: No space left"), "make room"),
        (OSError(errno.EACCES, "Permission denied"), "make it writable"),
    ],
    ids=["full", "full for safetensors", "not writable"],
)
def test_a_disk_error_removes_the_folder(tmp_path: Path, error: Exception, remedy: str) -> None:
    with pytest.raises(StorageError, match=remedy):
        fail_in_folder(tmp_path / "model", error)
    assert list(tmp_path.iterdir()) == []


def test_another_error_removes_the_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fail_in_folder(tmp_path / "model", KeyError())
    assert list(tmp_path.iterdir()) == []


def fail_in_folder(path: Path, error: Exception) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "config").write_text("{}")
        raise error


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(StorageError, match="cannot write"),
        atomic_folder(tmp_path / "file" / "model"),
    ):
        pass
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / "configured"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "configured"
    monkeypatch.delenv("TOXBENCH_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "toxbench"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "toxbench"


_WRITER = """
import sys
from pathlib import Path
from toxbench.util.atomic import atomic_file, atomic_folder
with atomic_file(Path("out.csv")), atomic_folder(Path("stand-in")):
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.faults(58)
@pytest.mark.skipif(os.name != "posix", reason="locks of folders are POSIX")
def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    writers = []
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER], cwd=tmp_path, stdin=pipe, stdout=pipe, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        writers.append(writer)
    (tmp_path / ".other.csv-abcdefgh.tmp").touch()
    killed, alive = writers
    killed.kill()
    killed.communicate()
    assert len(list(tmp_path.glob(".*.tmp"))) == 5
    write_atomically(tmp_path / "out.csv", b"data")
    with atomic_folder(tmp_path / "stand-in") as temporary:
        (temporary / "config").touch()
        assert len(list(tmp_path.glob(".*.tmp"))) == 4  # of other.csv, this and the living writer
    alive.kill()
    alive.communicate()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "stand-in"]
