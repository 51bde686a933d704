"""The real command in processes of its own, without seconds of imports: forks of a warm server.

The server has imported torch and transformers and has computed nothing. Each fork may be given less
than it needs (file size, another user), and may be told to kill itself at a named point of writing.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

_OVERRIDING = 0b1110  # capabilities by which root passes over permission bits


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: exit code; negative: the signal.
        out: what it wrote to stdout.
        said: what it wrote to stderr.
    """

    code: int
    out: str
    said: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        (line,) = (line for line in self.said.splitlines() if line.startswith("toxbench: error: "))
        assert "Traceback" not in self.said
        return line


@dataclass
class Running:
    """A command at work."""

    pid: int
    folder: Path
    read: Callable[[], dict[str, Any]] = field(repr=False)

    def wait(self) -> Ended:
        status: int = self.read()["status"]
        out, said = ((self.folder / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return Ended(os.waitstatus_to_exitcode(status), out, said)

    def kill(self, number: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self.pid, number)


class Forks:
    """Starts commands, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._read() == {"ready": True}

    def start(
        self,
        *words: str,
        environment: dict[str, str] | None = None,
        point: tuple[str, int, str] | None = None,
        bytes_a_file: int | None = None,
        bound: bool = False,
        out: str | None = None,
        api: dict[str, Any] | None = None,
    ) -> Running:
        """Start ``toxbench`` with some words, or ``toxbench.run``.

        Args:
            words: of the command line.
            out: file that stdout is.
            api: keywords of ``toxbench.run``, which is called instead: it does not measure first
                how fast the machine is.
            environment: variables besides those of the tests.
            point: file name's start, which time it is written, and moment: see `MOMENTS`.
            bytes_a_file: no file gets larger, as if the disk were full.
            bound: permission bits bind it, even if it is root.
        """
        folder = self._folder / f"command-{self._count}"
        folder.mkdir()
        self._count += 1
        asked = {
            "words": words, "folder": str(folder), "environment": environment or {},
            "point": point, "bytes_a_file": bytes_a_file, "bound": bound, "api": api,
            "out": out,
        }  # fmt: skip
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return Running(self._read()["pid"], folder, self._read)

    def run(self, *words: str, **options: Any) -> Ended:
        """Start a command and wait for its end."""
        return self.start(*words, **options).wait()

    def close(self) -> None:
        self._server.stdin.close()  # type: ignore[union-attr]
        self._server.wait()
        self._server.stdout.close()  # type: ignore[union-attr]

    def _read(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Starts commands without waiting for their imports."""
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


# What follows runs in the server and its forks.

MOMENTS = (
    "before it is made", "made", "half written", "written", "before the rename", "renamed", "synced"
)  # fmt: skip


def serve() -> None:
    """Fork off a command for each line of stdin, and say when it has ended."""
    import transformers.models.bert.modeling_bert
    import transformers.models.bert.tokenization_bert  # noqa: F401

    import toxbench.benchmark.run
    import toxbench.cli.main
    import toxbench.cli.progress
    import toxbench.executors.worker
    import toxbench.ranking.predictions
    import toxbench.tuning.tune  # noqa: F401
    from toxbench.data.audit import audit  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    answer(ready=True)
    for line in sys.stdin:
        asked = json.loads(line)
        # Pipes: their readers need no room where a command has none.
        pipes = {name: os.pipe() for name in ("out", "err")}
        pid = os.fork()
        if not pid:
            answers.close()
            _command(asked, pipes["out"][1], pipes["err"][1])
        answer(pid=pid)
        heard = [Thread(target=_drain, args=(*pipes[n], Path(asked["folder"], n))) for n in pipes]
        for thread in heard:
            thread.start()
        status = os.waitpid(pid, 0)[1]
        for thread in heard:
            thread.join()
        answer(status=status)


def _drain(source: int, other_end: int, path: Path) -> None:
    """Write what is heard to a file until everybody at the other end is gone."""
    os.close(other_end)
    with open(source, "rb") as heard, path.open("wb") as file:
        shutil.copyfileobj(heard, file)


def _command(asked: dict[str, Any], out: int, err: int) -> None:
    """Be the command; this process ends here."""
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(asked["out"], os.O_WRONLY) if asked["out"] else out, 1)
        os.dup2(err, 2)
        os.environ.update(asked["environment"])
        sys.path[:0] = asked["environment"].get("PYTHONPATH", "").split(os.pathsep)
        os.chdir(asked["folder"])
        _limit(asked["bytes_a_file"], asked["bound"])
        if asked["point"]:
            _kill_at(*asked["point"])
        if asked["api"]:
            import toxbench

            toxbench.run(**asked["api"])
            code = 0
            return
        from toxbench.cli.main import main

        main(asked["words"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 98
    except BaseException:  # noqa: BLE001 - told by the exit code, and on stderr
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _limit(bytes_a_file: int | None, bound: bool) -> None:
    if bytes_a_file is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
    if bound and os.getuid() == 0:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
        data = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, in two halves
        assert libc.capget(header, data) == 0
        data[0] &= ~_OVERRIDING
        data[1] &= ~_OVERRIDING
        assert libc.capset(header, data) == 0


def _kill_at(name: str, time_of_it: int, moment: str) -> None:
    """Kill this process when a file is written for the n-th time, at some moment of it."""
    import tempfile

    assert moment in MOMENTS
    make, sync, rename = tempfile.mkstemp, os.fsync, os.replace
    seen = {"files": 0, "syncs": 0}
    temporary = [""]

    def at(now: str) -> None:
        if now == moment and seen["files"] == time_of_it and temporary[0] != "another":
            if now == "half written":
                os.truncate(temporary[0], os.path.getsize(temporary[0]) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    def mkstemp(suffix: str, prefix: str, folder: Path) -> tuple[int, str]:
        ours = prefix.startswith(f".{name}")
        temporary[0] = "" if ours else "another"
        seen["files"] += ours
        seen["syncs"] = 0
        at("before it is made")
        handle, path = make(suffix, prefix, folder)
        temporary[0] = path if ours else "another"
        at("made")
        return handle, path

    def fsync(handle: int) -> None:
        seen["syncs"] += 1
        if seen["syncs"] == 1:
            at("half written")
            at("written")
        sync(handle)
        if seen["syncs"] == 2:
            at("synced")

    def replace(source: str, target: Path) -> None:
        at("before the rename")
        rename(source, target)
        at("renamed")

    tempfile.mkstemp, os.fsync, os.replace = mkstemp, fsync, replace  # type: ignore[assignment]


if __name__ == "__main__":
    serve()
