"""Which process works on a trial, and whether it still lives."""

import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from toxbench.atomic import make_folder, unwritable


class Worker:
    """This process. While it lives it holds a lock that the kernel frees when it dies."""

    def __init__(self, folder: Path) -> None:
        self.uid = uuid.uuid4().hex
        self._folder = folder
        make_folder(folder)
        self._lock = FileLock(self._path(self.uid))
        try:
            self._lock.acquire(timeout=0)
        except OSError as error:
            raise unwritable(folder, error) from error

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let go; after an error the lock's file stays, so that others see this worker gone."""
        self._lock.release()
        if kind is None:
            self._path(self.uid).unlink(missing_ok=True)

    def is_dead(self, uid: str) -> bool:
        """Whether another worker on this folder is known to be gone.

        False where that cannot be told: a worker on another folder is followed by heartbeats.
        """
        path = self._path(uid)
        if uid == self.uid or not path.is_file():
            return False
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        lock.release()
        return True

    def _path(self, uid: str) -> Path:
        return self._folder / f"{uid}.lock"
