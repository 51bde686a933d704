"""File locks that the operating system releases when their process dies, and their owners."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from toxbench.errors import TryAgainError
from toxbench.settings import FrozenModel
from toxbench.util.atomic import write_atomically, write_error


class LockOwner(FrozenModel):
    """The process that holds a lock, and since when; neither its machine nor its user."""

    pid: int
    since: datetime


@contextmanager
def hold_lock(path: Path, timeout: float = math.inf) -> Iterator[None]:
    """Hold a lock while the context lasts; wait ``timeout`` seconds for another process.

    The file must be in an existing folder. It is not removed afterwards.

    Raises:
        TryAgainError: another process holds the lock.
        StorageError: the file cannot be created or locked.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if timeout == math.inf else timeout)
    except Timeout as error:
        raise TryAgainError(
            f"another run{_owner_text(path)} is writing to {path.parent}; wait for it, or use "
            "another --results"
        ) from error
    except OSError as error:
        raise write_error(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def write_owner(path: Path) -> Iterator[None]:
    """Write this process as the owner of a lock that it holds; remove the file afterwards.

    Raises:
        StorageError: the folder cannot be written.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    owner_path = _owner_path(path)
    write_atomically(owner_path, json.dumps({"pid": os.getpid(), "since": since}).encode("ascii"))
    try:
        yield
    finally:
        with suppress(OSError):  # the next owner replaces the file
            owner_path.unlink()


def _owner_text(path: Path) -> str:
    try:
        owner = LockOwner.model_validate_json(_owner_path(path).read_bytes())
    except (OSError, ValidationError):  # it holds the lock, but has not written its file yet
        return ""
    return f" (process {owner.pid}, since {owner.since:%Y-%m-%d %H:%M:%S} UTC)"


def _owner_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")
