"""Runs the real command in forks of a server process, which saves seconds of imports.

The server has imported torch and transformers and has computed nothing. The size of a fork's files
and its permissions can be limited, and a fork can kill itself at a given moment of writing a file.
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
from threading import Thread, Timer
from typing import Any

import pytest
from children import fork_server, import_modules, patch_children

_OVERRIDING = 0b1110  # capabilities with which root ignores permission bits


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command.

    Attributes:
        code: exit code; negative: the signal.
        out: text on stdout.
        err: text on stderr.
    """

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The only error line."""
        (line,) = (line for line in self.err.splitlines() if line.startswith("toxbench: error: "))
        assert "Traceback" not in self.err
        return line


@dataclass
class RunningCommand:
    """A command that was started."""

    pid: int
    folder: Path
    read: Callable[[], dict[str, Any]] = field(repr=False)

    def wait(self) -> CommandResult:
        status: int = self.read()["status"]
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return CommandResult(os.waitstatus_to_exitcode(status), out, err)

    def kill(self, number: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):  # it has already ended
            os.kill(self.pid, number)


class StreamingCommand:
    """A command whose output is read while it runs, with the interface of `subprocess.Popen`.

    It leads a new process group and handles Ctrl-C.
    """

    def __init__(self, pid: int, folder: Path, read: Callable[[], dict[str, Any]]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._read = read
        # The command waits until both are open.
        self.stdout = (folder / "out").open(encoding="utf-8")
        self.stderr = (folder / "err").open(encoding="utf-8")

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Return the rest of the output; fail if the command does not end in time (seconds)."""
        timer = Timer(timeout, os.killpg, (self.pid, signal.SIGKILL))
        timer.start()
        texts = {"err": ""}
        reader = Thread(target=lambda: texts.update(err=self.stderr.read()))
        reader.start()
        out = self.stdout.read()
        reader.join()
        self.wait()
        is_late = not timer.is_alive()
        timer.cancel()
        assert not is_late, f"not done within {timeout} s"
        return out, texts["err"]

    def wait(self) -> int:
        """Wait until the command ends; its output has to be read or is lost."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(self._read()["status"])
            self.stdout.close()
            self.stderr.close()
        return self.returncode


class Forks:
    """Starts commands, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._streaming: StreamingCommand | None = None
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._read() == {"ready": True}

    def start(
        self,
        *words: str,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        kill_at: tuple[str, int, str] | None = None,
        bytes_a_file: int | None = None,
        obey_permissions: bool = False,
        out: str | None = None,
        api: dict[str, Any] | None = None,
    ) -> RunningCommand:
        """Start the command ``toxbench``, or ``toxbench.run``.

        Args:
            words: arguments of the command line.
            cwd: folder of the command; a new one by default.
            environment: variables in addition to those of the tests.
            kill_at: start of a file's name, the number of its write from 1, and one of `MOMENTS`;
                the command kills itself then.
            bytes_a_file: maximum size of a file, as if the disk were full.
            obey_permissions: permission bits apply even to root.
            out: file for stdout.
            api: keywords of ``toxbench.run``, which is called instead of the command; it does not
                measure the speed of the machine first.
        """
        folder = self._new_folder()
        pid = self._request(
            words=words, folder=str(folder), cwd=str(cwd or folder),
            environment={**os.environ, **(environment or {})}, kill_at=kill_at,
            bytes_a_file=bytes_a_file, api=api, obey_permissions=obey_permissions, out=out,
        )  # fmt: skip
        return RunningCommand(pid, folder, self._read)

    def stream(
        self,
        *words: str,
        cwd: Path,
        environment: dict[str, str] | None = None,
        torchrun: bool = False,
    ) -> StreamingCommand:
        """Start the command ``toxbench`` whose output is read while it runs.

        Args:
            words: arguments of the command line.
            cwd: folder of the command.
            environment: variables in addition to those of the tests.
            torchrun: torchrun starts it in two processes.
        """
        folder = self._new_folder()
        for name in ("out", "err"):
            os.mkfifo(folder / name)
        pid = self._request(
            words=words, folder=str(folder), cwd=str(cwd), streams=True, torchrun=torchrun,
            environment={**os.environ, **(environment or {})},
        )  # fmt: skip
        self._streaming = StreamingCommand(pid, folder, self._read)
        return self._streaming

    def _new_folder(self) -> Path:
        folder = self._folder / f"command-{self._count}"
        folder.mkdir()
        self._count += 1
        return folder

    def _request(self, **request: Any) -> int:
        """Send a request; return the id of the new process."""
        if self._streaming is not None and self._streaming.returncode is None:
            with suppress(ProcessLookupError):  # a test failed before the end of its command
                os.killpg(self._streaming.pid, signal.SIGKILL)
            self._streaming.wait()
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        pid: int = self._read()["pid"]
        return pid

    def run(self, *words: str, **options: Any) -> CommandResult:
        """Start a command and wait until it ends."""
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
    """The server that starts commands without the time of their imports."""
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


# The code below runs in the server and its forks.

MOMENTS = (
    "before it is made", "made", "half written", "written", "before the rename", "renamed", "synced"
)  # fmt: skip


def serve() -> None:
    """Fork a command for each line of stdin; write its process id, then its exit status."""
    import_modules()
    answers = os.fdopen(os.dup(1), "w")

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    answer(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        streams = request.get("streams", False)
        # Pipes, because a limit on the size of files would also apply to stdout in a file.
        pipes = {} if streams else {name: os.pipe() for name in ("out", "err")}
        folder = Path(request["folder"])
        pid = os.fork()
        if not pid:
            answers.close()
            if streams:
                os.setsid()
                signal.signal(signal.SIGINT, signal.default_int_handler)
            outputs = [
                pipes[name][1] if pipes else os.open(folder / name, os.O_WRONLY)
                for name in ("out", "err")
            ]
            _command(request, *outputs)
        answer(pid=pid)
        readers = [Thread(target=_drain, args=(*pipes[name], folder / name)) for name in pipes]
        for reader in readers:
            reader.start()
        status = os.waitpid(pid, 0)[1]
        for reader in readers:
            reader.join()
        answer(status=status)


def _drain(read_end: int, write_end: int, path: Path) -> None:
    """Copy a pipe to a file until all its writers have closed it."""
    os.close(write_end)
    with open(read_end, "rb") as pipe, path.open("wb") as file:
        shutil.copyfileobj(pipe, file)


def _command(request: dict[str, Any], out: int, err: int) -> None:
    """Run the command and end this process."""
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(request["out"], os.O_WRONLY) if request.get("out") else out, 1)
        os.dup2(err, 2)
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.path[:0] = request["environment"].get("PYTHONPATH", "").split(os.pathsep)
        os.chdir(request["cwd"])
        _limit(request.get("bytes_a_file"), request.get("obey_permissions", False))
        if sys.platform == "linux":
            server = fork_server()
            child_class = patch_children(lambda: server)
        if request.get("kill_at"):
            _kill_at(*request["kill_at"])
        if request.get("api"):
            import toxbench

            toxbench.run(**request["api"])
            code = 0
            return
        if request.get("torchrun"):
            _torchrun(request["words"], child_class)
            code = 0
            return
        from toxbench.cli.main import main

        main(request["words"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 98
    except BaseException:  # noqa: BLE001 - reported by the exit code and on stderr
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _torchrun(words: list[str], child_class: type[subprocess.Popen[bytes]]) -> None:
    """Run torchrun, which starts the command in two processes."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    subprocess_handler.Popen = child_class  # type: ignore[misc]
    run.main(["--standalone", "--nproc-per-node", "2", "-m", "toxbench", *words])


def _limit(bytes_a_file: int | None, obey_permissions: bool) -> None:
    """Limit the size of files, and remove root's capabilities to ignore permission bits."""
    if bytes_a_file is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
    if obey_permissions and os.getuid() == 0:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
        data = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, in two halves
        assert libc.capget(header, data) == 0
        data[0] &= ~_OVERRIDING
        data[1] &= ~_OVERRIDING
        assert libc.capset(header, data) == 0


def _kill_at(name: str, write_number: int, moment: str) -> None:
    """Make this process kill itself at a moment of a file's n-th write."""
    import tempfile

    assert moment in MOMENTS
    make, sync, rename = tempfile.mkstemp, os.fsync, os.replace
    counts = {"files": 0, "syncs": 0}
    temporary = [""]  # path of the temporary file, or "another" while another file is written

    def reach(current: str) -> None:
        is_write = counts["files"] == write_number and temporary[0] != "another"
        if current == moment and is_write:
            if current == "half written":
                os.truncate(temporary[0], os.path.getsize(temporary[0]) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    def mkstemp(suffix: str, prefix: str, folder: Path) -> tuple[int, str]:
        is_target = prefix.startswith(f".{name}")
        temporary[0] = "" if is_target else "another"
        counts["files"] += is_target
        counts["syncs"] = 0
        reach("before it is made")
        handle, path = make(suffix, prefix, folder)
        temporary[0] = path if is_target else "another"
        reach("made")
        return handle, path

    def fsync(handle: int) -> None:
        counts["syncs"] += 1
        if counts["syncs"] == 1:
            reach("half written")
            reach("written")
        sync(handle)
        if counts["syncs"] == 2:
            reach("synced")

    def replace(source: str, target: Path) -> None:
        reach("before the rename")
        rename(source, target)
        reach("renamed")

    tempfile.mkstemp, os.fsync, os.replace = mkstemp, fsync, replace  # type: ignore[assignment]


if __name__ == "__main__":
    serve()
